# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The two kernels of em_trajectory: a block of rows solved forward, and walked back.

`anchors` holds the state at every `chunk`-th point, or at every point. The backward pass takes a
chunk at a time: it solves again from the chunk's anchor (where RECOMPUTE; else all its states are
there), walks the chunk back with hidden layers recomputed and noise drawn again, and adds the
chunk's weight gradients to its own sum. So what it needs beside its inputs and outputs does not
grow with the steps.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sdevid_kernels.em_trajectory.triton import weight_grad
from sdevid_kernels.em_trajectory.triton.arguments import (
    ChainInputs,
    Gradients,
    Noise,
    Scratch,
    TimeGrid,
)
from sdevid_kernels.em_trajectory.triton.blocks import (
    block_from,
    element_of,
    increment,
    scratch_element_of,
)
from sdevid_kernels.em_trajectory.triton.coefficients import (
    coefficients_at,
    coefficients_backward,
    diffusion_at,
    shift_offset,
    step_to,
)
from sdevid_kernels.em_trajectory.triton.mlp_stack import stack_backward
from sdevid_kernels.em_trajectory.triton.resident import load_resident


@triton.jit(do_not_specialize=["seed", "clips", "tokens", "steps", "chunk"])
def forward(
    z_ptr,
    model,
    numbers,
    const: tl.constexpr,
    dw_ptr,
    serial_ptr,
    cell_ptr,
    seed,
    clips,
    tokens,
    dt_ptr,
    saved_index_ptr,
    states_ptr,
    anchors_ptr,
    energy_ptr,
    width_kl_ptr,
    work_ptr,
    rows,
    size,
    width,
    steps,
    chunk,
):
    """Solve a block of rows; store saved states, anchors, energy and the width's KL."""
    noise = Noise(dw_ptr, serial_ptr, cell_ptr, seed, clips, tokens)
    grid = TimeGrid(dt_ptr, saved_index_ptr, steps, chunk)
    chain = ChainInputs(model, numbers, noise, grid)
    program = tl.program_id(0).to(tl.int64)
    block = block_from(program * const.ROWS, rows, size, width, const)
    element, is_element = element_of(block), block.is_element
    scratch = _forward_scratch(work_ptr, program, block, const)
    z = tl.load(z_ptr + element, mask=is_element, other=0.0)
    energy, width_kl = (
        tl.full((const.ROWS,), 0.0, tl.float32),
        tl.full((const.ROWS,), 0.0, tl.float32),
    )
    _save(states_ptr, z, 0, grid, block)
    resident = (0, 0)
    if const.RESIDENT:
        resident = _resident(model, block, const)
    for k in range(steps):
        if const.RECOMPUTE:
            anchor_ptr = anchors_ptr + (k // chunk) * rows * size
            tl.store(anchor_ptr + element, z, mask=is_element & (k % chunk == 0))
        span = tl.load(dt_ptr + k * rows + block.row)
        dw = increment(noise, k, block, span, const)
        if (const.LAYERS > 1 or const.D > 64) and not const.RESIDENT:
            tl.debug_barrier()  # the last step's values have been read
        if const.D > 64:
            offset, is_scratch = scratch_element_of(scratch, block)
            tl.store(scratch.states_ptr + offset, z, mask=is_scratch)
            tl.debug_barrier()
        at = coefficients_at(z, k, chain, resident, scratch, block, const, BACKWARD=False)
        if const.HEADS > 0:
            energy += 0.5 * tl.sum(at.u * at.u, 1) * span
        if const.HEADS > 1:
            log_width = tl.log(tl.maximum(at.r, 1e-9))
            kl = tl.where(is_element, 0.5 * (at.r * at.r - 1) - log_width, 0.0)
            width_kl += tl.where(span > 0, tl.sum(kl, 1), 0.0)
        z = step_to(z, at, dw, span, block)
        _save(states_ptr, z, k + 1, grid, block)
    tl.store(energy_ptr + block.row, energy, mask=block.is_row)
    tl.store(width_kl_ptr + block.row, width_kl, mask=block.is_row)


@triton.jit
def _resident(model, block, const):
    """Load the weights of both networks, or the drift's twice."""
    drift = load_resident(model.drift, block, const, TWO=False)
    control = drift
    if const.HEADS > 0:
        control = load_resident(model.control, block, const, TWO=const.HEADS > 1)
    return drift, control


@triton.jit
def _forward_scratch(work_ptr, program, block, const):
    """Lay out the program's scratch memory: one step's state and either network's hidden values."""
    layers = (const.LAYERS - 1) * const.ROWS * block.width
    states_ptr = work_ptr + program * const.ROWS * (
        block.size + 2 * (const.LAYERS - 1) * block.width
    )
    drift_ptr = states_ptr + const.ROWS * block.size
    return Scratch(states_ptr, drift_ptr, drift_ptr + layers, tl.arange(0, const.ROWS), const.ROWS)


@triton.jit
def _save(states_ptr, z, point, grid, block):
    """Store the state at `point`, if that is to be saved."""
    index = tl.load(grid.saved_index_ptr + point)
    state_ptr = states_ptr + index * block.rows * block.size + element_of(block)
    tl.store(state_ptr, z, mask=block.is_element & (index >= 0))


@triton.jit
def _saved_gradient(grads, point, grid, block):
    """Load the gradient of the state saved at `point`: 0 where none was saved."""
    index = tl.load(grid.saved_index_ptr + point)
    grad_ptr = grads.states_ptr + index * block.rows * block.size + element_of(block)
    return tl.load(grad_ptr, mask=block.is_element & (index >= 0), other=0.0)


@triton.jit(do_not_specialize=["seed", "clips", "tokens", "steps", "chunk", "work_stride"])
def backward(
    anchors_ptr,
    grad_states_ptr,
    grad_energy_ptr,
    grad_width_ptr,
    model,
    numbers,
    const: tl.constexpr,
    dw_ptr,
    serial_ptr,
    cell_ptr,
    seed,
    clips,
    tokens,
    dt_ptr,
    saved_index_ptr,
    grad_z_ptr,
    grad_level_ptr,
    grad_slope_ptr,
    grad_curve_ptr,
    grad_drift_shift_ptr,
    grad_control_shift_ptr,
    totals_ptr,
    work_ptr,
    rows,
    size,
    width,
    steps,
    chunk,
    work_stride,
    total_stride,
):
    """Walk blocks of rows back; store the inputs' gradients, and the program's weight gradients."""
    noise = Noise(dw_ptr, serial_ptr, cell_ptr, seed, clips, tokens)
    grid = TimeGrid(dt_ptr, saved_index_ptr, steps, chunk)
    chain = ChainInputs(model, numbers, noise, grid)
    shifts = (grad_drift_shift_ptr, grad_control_shift_ptr)
    of_g = (grad_level_ptr, grad_slope_ptr, grad_curve_ptr)
    grads = Gradients(grad_states_ptr, *of_g, *shifts)
    program = tl.program_id(0).to(tl.int64)
    total_ptr, total_is_new = totals_ptr + program * total_stride, 1
    for part in range(tl.program_id(0), tl.cdiv(rows, const.ROWS), tl.num_programs(0)):
        block = block_from(part * const.ROWS, rows, size, width, const)
        scratch = _backward_scratch(work_ptr + program * work_stride, chunk, block, const)
        grad_energy = tl.load(grad_energy_ptr + block.row, mask=block.is_row, other=0.0)[:, None]
        grad_width = tl.load(grad_width_ptr + block.row, mask=block.is_row, other=0.0)[:, None]
        kl_grads = (grad_energy, grad_width)
        grad, shift_is_new = tl.full((const.ROWS, const.D), 0.0, tl.float32), 1
        for behind in range(tl.cdiv(steps, chunk)):
            begin = (tl.cdiv(steps, chunk) - 1 - behind) * chunk
            end = tl.minimum(begin + chunk, steps)
            tl.debug_barrier()  # the weight gradients of the chunk before have been added
            _chunk_states(anchors_ptr, begin, end, chain, scratch, block, const)
            tl.debug_barrier()
            for back in range(end - begin):
                k = end - 1 - back
                grad = _step_backward(grad, kl_grads, k, begin, chain, grads, scratch, block, const)
            tl.debug_barrier()
            used = end - begin
            _add_network_gradients(
                grads, total_ptr, used, total_is_new, shift_is_new, scratch, block, const
            )
            total_is_new, shift_is_new = 0, 0
        grad += _saved_gradient(grads, 0, grid, block)
        tl.store(grad_z_ptr + element_of(block), grad, mask=block.is_element)


@triton.jit
def _backward_scratch(states_ptr, chunk, block, const):
    """Lay out the program's scratch memory: a chunk's states, and what its layers leave behind."""
    area = chunk * const.ROWS
    drift_ptr = states_ptr + area * block.size
    control_ptr = drift_ptr + area * (3 * const.LAYERS * block.width + block.size)
    return Scratch(states_ptr, drift_ptr, control_ptr, tl.arange(0, const.ROWS), area)


@triton.jit
def _chunk_states(anchors_ptr, begin, end, chain, scratch, block, const):
    """Put the states before the steps `begin` to `end` into scratch memory."""
    rows, size = block.rows, block.size
    element = element_of(block)
    offset, is_scratch = scratch_element_of(scratch, block)
    first = begin // chain.grid.chunk if const.RECOMPUTE else begin
    anchor_ptr = anchors_ptr + first * rows * size + element
    z = tl.load(anchor_ptr, mask=block.is_element, other=0.0)
    tl.store(scratch.states_ptr + offset, z, mask=is_scratch)
    for k in range(begin, end - 1):
        states_ptr = scratch.states_ptr + (k - begin) * const.ROWS * size
        if const.RECOMPUTE:
            span = tl.load(chain.grid.dt_ptr + k * rows + block.row)
            dw = increment(chain.noise, k, block, span, const)
            tl.debug_barrier()  # the state is there, and values of the step before have been read
            here = Scratch(
                states_ptr, scratch.drift_ptr, scratch.control_ptr, scratch.row, scratch.area
            )
            at = coefficients_at(z, k, chain, (0, 0), here, block, const, BACKWARD=False)
            z = step_to(z, at, dw, span, block)
        else:
            state_ptr = anchors_ptr + (k + 1) * rows * size + element
            z = tl.load(state_ptr, mask=block.is_element, other=0.0)
        tl.store(states_ptr + const.ROWS * size + offset, z, mask=is_scratch)


@triton.jit
def _add_network_gradients(
    grads, total_ptr, steps, total_is_new, shift_is_new, scratch, block, const
):
    """Add the weight gradients of a chunk's `steps` steps, and those of shifts that all share."""
    size, width, rows = block.size, block.width, steps * const.ROWS
    weight_grad.add_weights(
        scratch.drift_ptr, total_ptr, size, rows, total_is_new, scratch, block, const
    )
    weight_grad.add_shift(
        scratch.drift_ptr, grads.drift_shift_ptr, steps, shift_is_new, scratch, block, const
    )
    if const.HEADS > 0:
        of_drift = width * size + (const.LAYERS - 1) * (width + 1) * width + size * (width + 1)
        control_ptr, outputs = total_ptr + of_drift, const.HEADS * size
        weight_grad.add_weights(
            scratch.control_ptr, control_ptr, outputs, rows, total_is_new, scratch, block, const
        )
        if const.ONE_SHIFT:
            shift_ptr = grads.control_shift_ptr
            weight_grad.add_shift(
                scratch.control_ptr, shift_ptr, steps, shift_is_new, scratch, block, const
            )


@triton.jit
def _step_backward(grad, kl_grads, k, begin, chain, grads, scratch, block, const):
    """Backward of step k: dL/dz[k] from `grad` = dL/dz[k+1] without the direct loss on z[k+1].

    `kl_grads` are dL/d(energy) and dL/d(width's KL), (ROWS, 1) each. Adds the step's share to the
    gradients of g's terms.
    """
    area, is_element = scratch.area, block.is_element
    element, grid = element_of(block), chain.grid
    grad += _saved_gradient(grads, k + 1, grid, block)
    row = scratch.row + (k - begin) * const.ROWS
    here = Scratch(scratch.states_ptr, scratch.drift_ptr, scratch.control_ptr, row, area)
    offset, is_scratch = scratch_element_of(here, block)
    z = tl.load(scratch.states_ptr + offset, mask=is_scratch, other=0.0)
    span = tl.load(grid.dt_ptr + k * block.rows + block.row)
    dw = increment(chain.noise, k, block, span, const)
    at = coefficients_at(z, k, chain, (0, 0), here, block, const, BACKWARD=True)
    z = tl.load(scratch.states_ptr + offset, mask=is_scratch, other=0.0)  # kept in no register
    of_g = diffusion_at(z, chain, block, const)
    to = coefficients_backward(
        grad, kl_grads[0], kl_grads[1], at, of_g, dw, span[:, None], chain.numbers, const
    )
    is_sum = is_element & (k + 1 < grid.steps)
    to_level = to.level + tl.load(grads.level_ptr + element, mask=is_sum, other=0.0)
    tl.store(grads.level_ptr + element, to_level, mask=is_element)
    if const.DIFFUSION > 0:
        to_slope = to.slope + tl.load(grads.slope_ptr + element, mask=is_sum, other=0.0)
        tl.store(grads.slope_ptr + element, to_slope, mask=is_element)
        to_curve = to.curve + tl.load(grads.curve_ptr + element, mask=is_sum, other=0.0)
        tl.store(grads.curve_ptr + element, to_curve, mask=is_element)
        grad += tl.where(is_element, to.z, 0.0)
    grad_z = _drift_backward(to.drift, chain.model.drift, here, block, const)
    if const.HEADS > 0:
        shift_ptr = grads.control_shift_ptr + shift_offset(k, block, const)
        grad_z += _control_backward(
            to.control, to.width, chain.model.control, shift_ptr, here, block, const
        )
    return grad + grad_z


@triton.jit
def _drift_backward(to_drift, stack, scratch, block, const):
    """Compute the state's gradient (ROWS, D) from that of the drift's outputs; store the latter."""
    to_drift = tl.where(block.is_element, to_drift, 0.0)
    offset, is_scratch = scratch_element_of(scratch, block)
    outputs_ptr = scratch.drift_ptr + 3 * const.LAYERS * scratch.area * block.width
    tl.store(outputs_ptr + offset, to_drift, mask=is_scratch)
    return stack_backward(
        to_drift,
        to_drift,
        stack,
        scratch.drift_ptr,
        scratch.drift_ptr,
        scratch,
        block,
        const,
        TWO=False,
        SHIFT=False,
    )


@triton.jit
def _control_backward(to_control, to_width, stack, grad_shift_ptr, scratch, block, const):
    """Compute the state's gradient (ROWS, D) from the control outputs' gradients; store those."""
    size = block.size
    to_control = tl.where(block.is_element, to_control, 0.0)
    to_width = tl.where(block.is_element, to_width, 0.0)
    _, is_scratch = scratch_element_of(scratch, block)
    outputs_ptr = scratch.control_ptr + 3 * const.LAYERS * scratch.area * block.width
    offset = scratch.row[:, None] * (const.HEADS * size) + block.component[None, :]
    tl.store(outputs_ptr + offset, to_control, mask=is_scratch)
    if const.HEADS > 1:
        tl.store(outputs_ptr + offset + size, to_width, mask=is_scratch)
    return stack_backward(
        to_control,
        to_width,
        stack,
        scratch.control_ptr,
        grad_shift_ptr,
        scratch,
        block,
        const,
        TWO=const.HEADS > 1,
        SHIFT=not const.ONE_SHIFT,
    )

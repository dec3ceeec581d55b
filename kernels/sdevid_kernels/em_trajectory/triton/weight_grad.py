# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Weight gradients of a program's last steps, added to those of the program's steps before.

Each program has a sum of its own, so that nothing depends on the order in which programs run.
"""

from __future__ import annotations

import triton
import triton.language as tl

_K = tl.constexpr(16)  # rows of a product at a time


@triton.jit
def _add_product(grads_ptr, outputs, values_ptr, inputs, total_ptr, rows, is_new, const):
    """Add grads' values over `rows` rows to total (outputs, inputs), F x F at a time."""
    for top in range(0, outputs, const.F):
        m = top + tl.arange(0, const.F)
        for left in range(0, inputs, const.F):
            n = left + tl.arange(0, const.F)
            offset = m[:, None] * inputs + n[None, :]
            is_weight = (m[:, None] < outputs) & (n[None, :] < inputs)
            total = tl.load(total_ptr + offset, mask=is_weight & (is_new == 0), other=0.0)
            for begin in range(0, rows, _K):
                r = begin + tl.arange(0, _K)
                is_grad = (m[:, None] < outputs) & (r[None, :] < rows)
                grad_ptr = grads_ptr + r[None, :] * outputs + m[:, None]
                b_grad = tl.load(grad_ptr, mask=is_grad, other=0.0)
                is_value = (r[:, None] < rows) & (n[None, :] < inputs)
                value_ptr = values_ptr + r[:, None] * inputs + n[None, :]
                b_value = tl.load(value_ptr, mask=is_value, other=0.0)
                total += tl.dot(b_grad, b_value, input_precision=const.PRECISION)
            tl.store(total_ptr + offset, total, mask=is_weight)


@triton.jit
def _add_sum(grads_ptr, outputs, total_ptr, rows, is_new, const):
    """Add the sum of grads over `rows` rows to total (outputs,)."""
    for top in range(0, outputs, const.F):
        m = top + tl.arange(0, const.F)
        is_bias = m < outputs
        total = tl.load(total_ptr + m, mask=is_bias & (is_new == 0), other=0.0)
        for begin in range(0, rows, _K):
            r = begin + tl.arange(0, _K)
            is_grad = is_bias[:, None] & (r[None, :] < rows)
            grad_ptr = grads_ptr + r[None, :] * outputs + m[:, None]
            total += tl.sum(tl.load(grad_ptr, mask=is_grad, other=0.0), 1)
        tl.store(total_ptr + m, total, mask=is_bias)


@triton.jit
def add_weights(layers_ptr, total_ptr, outputs, rows, is_new, scratch, block, const):
    """Add a network's gradients from the first `rows` rows at `layers_ptr`.

    They lie layer after layer, each layer's weight before its bias; the first has no bias.
    """
    width, each = block.width, scratch.area * block.width
    grads_ptr = layers_ptr + 2 * const.LAYERS * each
    _add_product(grads_ptr, width, scratch.states_ptr, block.size, total_ptr, rows, is_new, const)
    total_ptr += width * block.size
    for layer in tl.static_range(1, tl.constexpr(const.LAYERS)):
        values_ptr, layer_ptr = layers_ptr + (layer - 1) * each, grads_ptr + layer * each
        _add_product(layer_ptr, width, values_ptr, width, total_ptr, rows, is_new, const)
        _add_sum(layer_ptr, width, total_ptr + width * width, rows, is_new, const)
        total_ptr += width * width + width
    last_ptr = layers_ptr + 3 * const.LAYERS * each
    values_ptr = layers_ptr + (const.LAYERS - 1) * each
    _add_product(last_ptr, outputs, values_ptr, width, total_ptr, rows, is_new, const)
    _add_sum(last_ptr, outputs, total_ptr + outputs * width, rows, is_new, const)


@triton.jit
def add_shift(layers_ptr, total_ptr, steps, is_new, scratch, block, const):
    """Add the first layer's gradients of a block of rows to total (rows, width), over `steps`."""
    width = block.width
    grads_ptr = layers_ptr + 2 * const.LAYERS * scratch.area * width
    for begin in range(0, width, const.TILE):
        unit = begin + tl.arange(0, const.TILE)
        is_unit = unit[None, :] < width
        is_shift = block.is_row[:, None] & is_unit
        shift_ptr = total_ptr + block.row[:, None] * width + unit[None, :]
        total = tl.load(shift_ptr, mask=is_shift & (is_new == 0), other=0.0)
        for step in range(steps):
            row = step * const.ROWS + tl.arange(0, const.ROWS)
            offset = row[:, None] * width + unit[None, :]
            total += tl.load(grads_ptr + offset, mask=is_unit & (offset >= 0), other=0.0)
        tl.store(shift_ptr, total, mask=is_shift)

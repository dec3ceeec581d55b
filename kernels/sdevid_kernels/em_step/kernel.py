# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: ARG001, N803
"""em_step in one launch: noise, drift, control, diffusion, width and the KL's sum.

Bytes an element with 16-bit coefficients: forward 16 (four coefficients and the state read, the
state written), backward 18 (the state's gradient, control, diffusion and width read, four gradients
written). Noise is drawn again in the backward pass.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdevid_kernels.philox.kernel import block, log, signed
from sdevid_kernels.philox.reference import LANES

_GROUPS = 256  # most counters a program, four components each
OPTIONS = {"num_warps": 2}  # 16 components a thread share what a thread does once


class Element(NamedTuple):
    """A program's elements of one clip, and the step there."""

    clip: Any
    offset: Any  # in arrays of the state's shape
    is_element: Any
    step: Any  # the clip's dt
    dw: Any


@triton.jit
def elements_of(
    dt_ptr,
    dw_ptr,
    seed,
    serial_ptr,
    cell_ptr,
    size,
    groups,
    DRAWN: tl.constexpr,
    EVEN: tl.constexpr,
    G: tl.constexpr,
):
    """Locate the program's elements; draw their dW and scale it by sqrt(dt), or read it."""
    clip = tl.program_id(0).to(tl.int64)
    first_group = tl.program_id(1).to(tl.int64) * G
    component = first_group * 4 + tl.arange(0, 4 * G)
    is_element = component < size
    offset = clip * size + component
    if EVEN:
        offset = tl.max_contiguous(tl.multiple_of(offset, 4), 4)
    step = tl.load(dt_ptr + clip)
    if DRAWN:
        serial, cell = tl.load(serial_ptr + clip), tl.load(cell_ptr + clip)
        dw = block(seed, serial, cell, groups, first_group, step, G)
    else:
        dw = tl.load(dw_ptr + offset, mask=is_element, other=0.0).to(tl.float32)
    return Element(clip, offset, is_element, step, dw)


@triton.jit
def load_elements(ptr, at, other: tl.constexpr, EVEN: tl.constexpr):
    """Load elements `at` of an array in float32."""
    if EVEN:
        value = tl.load(ptr + at.offset)
    else:
        value = tl.load(ptr + at.offset, mask=at.is_element, other=other)
    return value.to(tl.float32)


@triton.jit
def store_elements(ptr, at, value, EVEN: tl.constexpr):
    """Store elements `at` in the array's type."""
    if EVEN:
        tl.store(ptr + at.offset, value.to(ptr.dtype.element_ty))
    else:
        tl.store(ptr + at.offset, value.to(ptr.dtype.element_ty), mask=at.is_element)


@triton.jit
def times(a, b):
    """Compute the product of two numbers."""
    return a * b


@triton.jit
def width_kl(b_r, G: tl.constexpr):
    """Compute the sum of 1/2 (r^2 - 1) - log r, four components at a time.

    Their logarithms are one, of their product. A width below 1e-9 counts as that there, so that
    the product is a normal number.
    """
    squares = tl.sum(tl.reshape(b_r * b_r, (G, 4)), 1)
    product = tl.reduce(tl.reshape(tl.maximum(b_r, 1e-9), (G, 4)), 1, times)
    return tl.sum(0.5 * (squares - 4.0) - log(product), 0)


@triton.jit(do_not_specialize=["seed"])
def forward(
    z_ptr,
    drift_ptr,
    diffusion_ptr,
    control_ptr,
    width_ptr,
    dw_ptr,
    dt_ptr,
    serial_ptr,
    cell_ptr,
    out_ptr,
    kl_ptr,
    seed,
    size,
    groups,
    CONTROL: tl.constexpr,
    WIDTH: tl.constexpr,
    DRAWN: tl.constexpr,
    EVEN: tl.constexpr,
    G: tl.constexpr,
):
    """Compute out = z + (drift + g u) dt + r g dW, and the program's share of the KL."""
    at = elements_of(dt_ptr, dw_ptr, seed, serial_ptr, cell_ptr, size, groups, DRAWN, EVEN, G)
    b_g = load_elements(diffusion_ptr, at, 0.0, EVEN)
    velocity = load_elements(drift_ptr, at, 0.0, EVEN)
    scale, kl = b_g, 0.0
    if CONTROL:
        b_u = load_elements(control_ptr, at, 0.0, EVEN)
        velocity += b_g * b_u
        kl += 0.5 * at.step * tl.sum(b_u * b_u, 0)
    if WIDTH:
        b_r = load_elements(width_ptr, at, 1.0, EVEN)
        scale = b_g * b_r
        kl += tl.where(at.step > 0, width_kl(b_r, G), 0.0)
    out = load_elements(z_ptr, at, 0.0, EVEN) + velocity * at.step + scale * at.dw
    store_elements(out_ptr, at, out, EVEN)
    tl.store(kl_ptr + at.clip * tl.num_programs(1) + tl.program_id(1), kl)


@triton.jit(do_not_specialize=["seed"])
def backward(
    grad_ptr,
    grad_kl_ptr,
    diffusion_ptr,
    control_ptr,
    width_ptr,
    dw_ptr,
    dt_ptr,
    serial_ptr,
    cell_ptr,
    grad_drift_ptr,
    grad_diffusion_ptr,
    grad_control_ptr,
    grad_width_ptr,
    seed,
    size,
    groups,
    CONTROL: tl.constexpr,
    WIDTH: tl.constexpr,
    DRAWN: tl.constexpr,
    EVEN: tl.constexpr,
    G: tl.constexpr,
):
    """Compute the gradients of drift, g, u and r from those of the new state and the clip's KL."""
    at = elements_of(dt_ptr, dw_ptr, seed, serial_ptr, cell_ptr, size, groups, DRAWN, EVEN, G)
    b_grad_kl, b_grad = tl.load(grad_kl_ptr + at.clip), load_elements(grad_ptr, at, 0.0, EVEN)
    b_g = load_elements(diffusion_ptr, at, 0.0, EVEN)
    store_elements(grad_drift_ptr, at, b_grad * at.step, EVEN)
    factor = at.dw
    if WIDTH:
        b_r = load_elements(width_ptr, at, 1.0, EVEN)
        factor = at.dw * b_r
        to_width = tl.where(at.step > 0, b_grad_kl, 0.0)
        least = tl.maximum(b_r, 1e-9)
        narrowing = to_width * (b_r - tl.rsqrt(least * least))  # a root costs half a division
        store_elements(grad_width_ptr, at, b_grad * b_g * at.dw + narrowing, EVEN)
    if CONTROL:
        b_u = load_elements(control_ptr, at, 0.0, EVEN)
        factor += b_u * at.step
        store_elements(grad_control_ptr, at, (b_grad * b_g + b_grad_kl * b_u) * at.step, EVEN)
    store_elements(grad_diffusion_ptr, at, b_grad * factor, EVEN)


def grid_of(z: Tensor) -> tuple[int, int, int, int]:
    """Compute components and counters a clip, counters a program, and programs a clip."""
    size = z[0].numel()
    groups = triton.cdiv(size, LANES)
    block_groups = min(_GROUPS, triton.next_power_of_2(groups))
    return size, groups, block_groups, triton.cdiv(groups, block_groups)


def _shared_arguments(
    z: Tensor,
    diffusion: Tensor,
    control: Tensor | None,
    width: Tensor | None,
    dt: Tensor,
    dw: Tensor | None,
    serial: Tensor,
    cell: Tensor,
    seed: int,
) -> dict[str, Any]:
    """Name the arguments that both kernels take, for states like `z`."""
    size, groups, block_groups, _ = grid_of(z)
    return {
        "size": size,
        "groups": groups,
        "EVEN": size % (4 * block_groups) == 0,
        "G": block_groups,
        "diffusion_ptr": diffusion,
        "control_ptr": control,
        "width_ptr": width,
        "dt_ptr": dt,
        "dw_ptr": dw,
        "serial_ptr": serial,
        "cell_ptr": cell,
        "seed": seed,
        "CONTROL": control is not None,
        "WIDTH": width is not None,
        "DRAWN": dw is None,
        **OPTIONS,
    }


@torch.library.custom_op("sdevid::em_step", mutates_args=())
def em_step(
    z: Tensor,
    drift: Tensor,
    diffusion: Tensor,
    control: Tensor | None,
    width: Tensor | None,
    dt: Tensor,
    dw: Tensor | None,
    serial: Tensor,
    cell: Tensor,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Take the reference's step on contiguous float32 `z` (batch, *shape).

    The coefficients have its shape. Without `dw`, the noise is drawn: cell `cell` of clip `serial`,
    times sqrt(dt).
    """
    programs = grid_of(z)[3]
    out = torch.empty_like(z)
    kl = z.new_empty(len(z), programs)
    forward[(len(z), programs)](
        z_ptr=z,
        drift_ptr=drift,
        out_ptr=out,
        kl_ptr=kl,
        **_shared_arguments(z, diffusion, control, width, dt, dw, serial, cell, seed),
    )
    return out, kl.view(-1) if programs == 1 else kl.sum(1)


@em_step.register_fake
def _(z, drift, diffusion, control, width, dt, dw, serial, cell, seed):
    return torch.empty_like(z), z.new_empty(len(z))


@torch.library.custom_op("sdevid::em_step_backward", mutates_args=())
def em_step_backward(
    grad: Tensor,
    grad_kl: Tensor,
    drift_like: Tensor,
    diffusion: Tensor,
    control: Tensor | None,
    width: Tensor | None,
    dt: Tensor,
    dw: Tensor | None,
    serial: Tensor,
    cell: Tensor,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of drift, diffusion, control and width; empty where one is absent."""
    programs = grid_of(grad)[3]
    outs = _gradients(grad, drift_like, diffusion, control, width)
    to_drift, to_diffusion, to_control, to_width = outs
    backward[(len(grad), programs)](
        grad_ptr=grad.contiguous(),
        grad_kl_ptr=grad_kl.contiguous(),
        grad_drift_ptr=to_drift,
        grad_diffusion_ptr=to_diffusion,
        grad_control_ptr=to_control,
        grad_width_ptr=to_width,
        **_shared_arguments(grad, diffusion, control, width, dt, dw, serial, cell, seed),
    )
    return outs


@em_step_backward.register_fake
def _(grad, grad_kl, drift_like, diffusion, control, width, *_rest):
    return _gradients(grad, drift_like, diffusion, control, width)


def _gradients(
    grad: Tensor,
    drift_like: Tensor,
    diffusion: Tensor,
    control: Tensor | None,
    width: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    to_drift, to_diffusion, to_control, to_width = (
        torch.empty_like(grad, dtype=like.dtype) if like is not None else grad.new_empty(0)
        for like in (drift_like, diffusion, control, width)
    )
    return to_drift, to_diffusion, to_control, to_width


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, drift, diffusion, control, width, dt, dw, serial, cell, ctx.seed = inputs
    like = drift.new_empty(0)  # the drift's type; its values are not needed
    ctx.save_for_backward(like, diffusion, control, width, dt, dw, serial, cell)


def _pull_back(ctx: Any, grad: Tensor, grad_kl: Tensor) -> tuple[Tensor | None, ...]:
    gradients = em_step_backward(grad, grad_kl, *ctx.saved_tensors, ctx.seed)
    present = [value if value.numel() else None for value in gradients]
    return grad, *present, None, None, None, None, None


em_step.register_autograd(_pull_back, setup_context=_setup)


def launch_step(
    z: Tensor,
    drift: Tensor,
    diffusion: Tensor,
    dt: Tensor,
    noise: tuple[int, Tensor, Tensor] | Tensor,
    control: Tensor | None,
    width: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run `em_step` on any strides and on shapes that broadcast.

    `noise`: (seed, serial, cell) or dW.
    """
    coefficients = [
        None if x is None else x.expand_as(z).contiguous()
        for x in (drift, diffusion, control, width)
    ]
    new_state, kl = em_step(z.contiguous(), *coefficients, *noise_arguments(z, dt, noise))
    return new_state, kl


def noise_arguments(z: Tensor, dt: Tensor, noise: tuple[int, Tensor, Tensor] | Tensor) -> Any:
    """Return dt, dw, serial, cell and seed as the operators take them."""
    dt = dt.float().contiguous()
    if isinstance(noise, Tensor):
        unused = dt.new_zeros(1, dtype=torch.int64)
        return dt, noise.expand_as(z).contiguous(), unused, unused, 0
    return dt, None, noise[1], noise[2], signed(noise[0])

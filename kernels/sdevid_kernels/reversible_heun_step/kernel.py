# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: ARG001, N803
"""move_companion in one launch; the noise is drawn again in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdevid_kernels.em_step.kernel import grid_of, noise_arguments, step_of
from sdevid_kernels.heun_step.reference import Rates


@triton.jit(do_not_specialize=["seed"])
def _forward(
    z,
    companion,
    drift,
    diffusion,
    control,
    dt,
    dw,
    serial,
    place,
    seed,
    out,
    size,
    groups,
    CONTROL: tl.constexpr,
    DRAWN: tl.constexpr,
    G: tl.constexpr,
):
    _, at, live, d, noise = step_of(dt, dw, seed, serial, place, size, groups, DRAWN, G)
    g = tl.load(diffusion + at, mask=live, other=0.0).to(tl.float32)
    total = tl.load(drift + at, mask=live, other=0.0).to(tl.float32)
    if CONTROL:
        total += g * tl.load(control + at, mask=live, other=0.0).to(tl.float32)
    base = 2 * tl.load(z + at, mask=live, other=0.0) - tl.load(companion + at, mask=live, other=0.0)
    tl.store(out + at, base + total * d + g * noise, mask=live)


@triton.jit(do_not_specialize=["seed"])
def _backward(
    grad,
    diffusion,
    control,
    dt,
    dw,
    serial,
    place,
    seed,
    grad_z,
    grad_companion,
    grad_drift,
    grad_diffusion,
    grad_control,
    size,
    groups,
    CONTROL: tl.constexpr,
    DRAWN: tl.constexpr,
    G: tl.constexpr,
):
    _, at, live, d, noise = step_of(dt, dw, seed, serial, place, size, groups, DRAWN, G)
    up = tl.load(grad + at, mask=live, other=0.0)
    tl.store(grad_z + at, 2 * up, mask=live)
    tl.store(grad_companion + at, -up, mask=live)
    tl.store(grad_drift + at, (up * d).to(grad_drift.dtype.element_ty), mask=live)
    factor = noise
    if CONTROL:
        g = tl.load(diffusion + at, mask=live, other=0.0).to(tl.float32)
        factor += tl.load(control + at, mask=live, other=0.0).to(tl.float32) * d
        value = up * g * d
        tl.store(grad_control + at, value.to(grad_control.dtype.element_ty), mask=live)
    tl.store(grad_diffusion + at, (up * factor).to(grad_diffusion.dtype.element_ty), mask=live)


@torch.library.custom_op("sdevid::move_companion", mutates_args=())
def move_companion(
    z: Tensor,
    companion: Tensor,
    drift: Tensor,
    diffusion: Tensor,
    control: Tensor | None,
    dt: Tensor,
    dw: Tensor | None,
    serial: Tensor,
    place: Tensor,
    seed: int,
) -> Tensor:
    """The reference's move on contiguous float32 states and coefficients of their shape."""
    size, groups, block_of, parts = grid_of(z)
    out = torch.empty_like(z)
    keys = (dt, dw, serial, place, seed)
    flags: dict[str, Any] = {"CONTROL": control is not None, "DRAWN": dw is None, "G": block_of}
    _forward[(parts * len(z),)](
        z, companion, drift, diffusion, control, *keys, out, size, groups, **flags
    )
    return out


@move_companion.register_fake
def _(z, *_rest):
    return torch.empty_like(z)


@torch.library.custom_op("sdevid::move_companion_backward", mutates_args=())
def move_companion_backward(
    grad: Tensor,
    drift_like: Tensor,
    diffusion: Tensor,
    control: Tensor | None,
    dt: Tensor,
    dw: Tensor | None,
    serial: Tensor,
    place: Tensor,
    seed: int,
) -> list[Tensor]:
    """Gradients of state, companion, drift, diffusion and control (empty where absent)."""
    size, groups, block_of, parts = grid_of(grad)
    outs = _gradients(grad, drift_like, diffusion, control)
    keys = (dt, dw, serial, place, seed)
    flags: dict[str, Any] = {"CONTROL": control is not None, "DRAWN": dw is None, "G": block_of}
    _backward[(parts * len(grad),)](
        grad.contiguous(), diffusion, control, *keys, *outs, size, groups, **flags
    )
    return outs


@move_companion_backward.register_fake
def _(grad, drift_like, diffusion, control, *_rest):
    return _gradients(grad, drift_like, diffusion, control)


def _gradients(
    grad: Tensor, drift_like: Tensor, diffusion: Tensor, control: Tensor | None
) -> list[Tensor]:
    like = (grad, grad, drift_like, diffusion)
    made = [torch.empty_like(grad, dtype=tensor.dtype) for tensor in like]
    nothing = grad.new_empty(0)
    return [*made, nothing if control is None else torch.empty_like(grad, dtype=control.dtype)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, _, drift, diffusion, control, dt, dw, serial, place, ctx.seed = inputs
    ctx.save_for_backward(drift.new_empty(0), diffusion, control, dt, dw, serial, place)


def _pull_back(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    made = move_companion_backward(grad, *ctx.saved_tensors, ctx.seed)
    present = [value if value.numel() else None for value in made]
    return *present, None, None, None, None, None


move_companion.register_autograd(_pull_back, setup_context=_setup)


def run(
    z: Tensor,
    companion: Tensor,
    rates: Rates,
    dt: Tensor,
    noise: tuple[int, Tensor, Tensor] | Tensor,
) -> Tensor:
    """`move_companion` on any strides and shapes that broadcast."""
    like = [None if x is None else x.expand_as(z).contiguous() for x in rates]
    keys = noise_arguments(z, dt, noise)
    made: Tensor = move_companion(z.contiguous(), companion.contiguous(), *like, *keys)
    return made

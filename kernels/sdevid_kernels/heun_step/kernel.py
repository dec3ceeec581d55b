# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: ARG001, N803
"""heun_step in one launch; the noise is drawn again in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdevid_kernels.em_step.kernel import grid_of, noise_arguments, step_of
from sdevid_kernels.heun_step.reference import Rates


@triton.jit
def _one_end(drift, diffusion, control, at, live, half, noise, CONTROL: tl.constexpr):
    g = tl.load(diffusion + at, mask=live, other=0.0).to(tl.float32)
    total = tl.load(drift + at, mask=live, other=0.0).to(tl.float32)
    spent = tl.zeros_like(g)
    if CONTROL:
        u = tl.load(control + at, mask=live, other=0.0).to(tl.float32)
        total += g * u
        spent = 0.5 * u * u * half
    return total * half + 0.5 * g * noise, spent


@triton.jit(do_not_specialize=["seed"])
def _forward(
    z,
    drift,
    diffusion,
    control,
    drift_2,
    diffusion_2,
    control_2,
    dt,
    dw,
    serial,
    place,
    seed,
    out,
    kl,
    size,
    groups,
    CONTROL: tl.constexpr,
    DRAWN: tl.constexpr,
    G: tl.constexpr,
):
    _, at, live, d, noise = step_of(dt, dw, seed, serial, place, size, groups, DRAWN, G)
    one, spent = _one_end(drift, diffusion, control, at, live, 0.5 * d, noise, CONTROL)
    two, more = _one_end(drift_2, diffusion_2, control_2, at, live, 0.5 * d, noise, CONTROL)
    moved = tl.load(z + at, mask=live, other=0.0) + one + two
    tl.store(out + at, moved, mask=live)
    tl.store(kl + tl.program_id(0), tl.sum(spent + more, 0))


@triton.jit
def _one_end_back(
    diffusion,
    control,
    grad_drift,
    grad_diffusion,
    grad_control,
    at,
    live,
    up,
    for_kl,
    half,
    noise,
    CONTROL: tl.constexpr,
):
    tl.store(grad_drift + at, (up * half).to(grad_drift.dtype.element_ty), mask=live)
    factor = 0.5 * noise
    if CONTROL:
        g = tl.load(diffusion + at, mask=live, other=0.0).to(tl.float32)
        u = tl.load(control + at, mask=live, other=0.0).to(tl.float32)
        factor += u * half
        value = (up * g + for_kl * u) * half
        tl.store(grad_control + at, value.to(grad_control.dtype.element_ty), mask=live)
    tl.store(grad_diffusion + at, (up * factor).to(grad_diffusion.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["seed"])
def _backward(
    grad,
    grad_kl,
    diffusion,
    control,
    diffusion_2,
    control_2,
    dt,
    dw,
    serial,
    place,
    seed,
    grad_drift,
    grad_diffusion,
    grad_control,
    grad_drift_2,
    grad_diffusion_2,
    grad_control_2,
    size,
    groups,
    CONTROL: tl.constexpr,
    DRAWN: tl.constexpr,
    G: tl.constexpr,
):
    clip, at, live, d, noise = step_of(dt, dw, seed, serial, place, size, groups, DRAWN, G)
    for_kl, up = tl.load(grad_kl + clip), tl.load(grad + at, mask=live, other=0.0)
    _one_end_back(
        diffusion,
        control,
        grad_drift,
        grad_diffusion,
        grad_control,
        at,
        live,
        up,
        for_kl,
        0.5 * d,
        noise,
        CONTROL,
    )
    _one_end_back(
        diffusion_2,
        control_2,
        grad_drift_2,
        grad_diffusion_2,
        grad_control_2,
        at,
        live,
        up,
        for_kl,
        0.5 * d,
        noise,
        CONTROL,
    )


@torch.library.custom_op("sdevid::heun_step", mutates_args=())
def heun_step(
    z: Tensor,
    drift: Tensor,
    diffusion: Tensor,
    control: Tensor | None,
    drift_2: Tensor,
    diffusion_2: Tensor,
    control_2: Tensor | None,
    dt: Tensor,
    dw: Tensor | None,
    serial: Tensor,
    place: Tensor,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """The reference's step on contiguous float32 `z` and coefficients of its shape."""
    size, groups, block_of, parts = grid_of(z)
    out = torch.empty_like(z)
    kl = z.new_empty(len(z), parts)
    ends = (drift, diffusion, control, drift_2, diffusion_2, control_2)
    keys = (dt, dw, serial, place, seed)
    flags: dict[str, Any] = {"CONTROL": control is not None, "DRAWN": dw is None, "G": block_of}
    _forward[(parts * len(z),)](z, *ends, *keys, out, kl, size, groups, **flags)
    return out, kl.view(-1) if parts == 1 else kl.sum(1)


@heun_step.register_fake
def _(z, *_rest):
    return torch.empty_like(z), z.new_empty(len(z))


@torch.library.custom_op("sdevid::heun_step_backward", mutates_args=())
def heun_step_backward(
    grad: Tensor,
    grad_kl: Tensor,
    drift_like: Tensor,
    diffusion: Tensor,
    control: Tensor | None,
    diffusion_2: Tensor,
    control_2: Tensor | None,
    dt: Tensor,
    dw: Tensor | None,
    serial: Tensor,
    place: Tensor,
    seed: int,
) -> list[Tensor]:
    """Gradients of drift, diffusion and control at both ends; empty for an absent control."""
    size, groups, block_of, parts = grid_of(grad)
    outs = _gradients(grad, drift_like, diffusion, control)
    ends = (diffusion, control, diffusion_2, control_2)
    keys = (dt, dw, serial, place, seed)
    flags: dict[str, Any] = {"CONTROL": control is not None, "DRAWN": dw is None, "G": block_of}
    _backward[(parts * len(grad),)](
        grad.contiguous(), grad_kl.contiguous(), *ends, *keys, *outs, size, groups, **flags
    )
    return outs


@heun_step_backward.register_fake
def _(grad, grad_kl, drift_like, diffusion, control, *_rest):
    return _gradients(grad, drift_like, diffusion, control)


def _gradients(
    grad: Tensor, drift_like: Tensor, diffusion: Tensor, control: Tensor | None
) -> list[Tensor]:
    def one_end() -> list[Tensor]:
        made = [torch.empty_like(grad, dtype=like.dtype) for like in (drift_like, diffusion)]
        if control is None:
            return [*made, grad.new_empty(0)]
        return [*made, torch.empty_like(grad, dtype=control.dtype)]

    return one_end() + one_end()


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, drift, g, u, _, g_2, u_2, dt, dw, serial, place, ctx.seed = inputs
    ctx.save_for_backward(drift.new_empty(0), g, u, g_2, u_2, dt, dw, serial, place)


def _pull_back(ctx: Any, grad: Tensor, grad_kl: Tensor) -> tuple[Tensor | None, ...]:
    made = heun_step_backward(grad, grad_kl, *ctx.saved_tensors, ctx.seed)
    present = [value if value.numel() else None for value in made]
    return grad, *present, None, None, None, None, None


heun_step.register_autograd(_pull_back, setup_context=_setup)


def run(
    z: Tensor,
    first: Rates,
    second: Rates,
    dt: Tensor,
    noise: tuple[int, Tensor, Tensor] | Tensor,
) -> tuple[Tensor, Tensor]:
    """`heun_step` on any strides and shapes that broadcast."""
    kinds = (first, second)
    kind = torch.promote_types(*(end.drift.dtype for end in kinds))
    ends = [
        None if x is None else x.to(kind).expand_as(z).contiguous() for end in kinds for x in end
    ]
    keys = noise_arguments(z, dt, noise)
    made: tuple[Tensor, Tensor] = heun_step(z.contiguous(), *ends, *keys)
    return made

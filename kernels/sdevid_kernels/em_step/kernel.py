# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: ARG001, N803
"""em_step in one launch: noise, drift, control, diffusion, width and the KL's sum.

Bytes an element with 16-bit coefficients: forward 16 (four coefficients and the state read, the
state written), backward 18 (the state's gradient, control, diffusion and width read, four gradients
written). Noise is drawn again in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sdevid_kernels.philox.kernel import block, signed
from sdevid_kernels.philox.reference import LANES

_GROUPS = 256  # most counters a program, four components each


@triton.jit
def step_of(dt, dw, seed, serial, place, size, groups, DRAWN: tl.constexpr, G: tl.constexpr):
    """A program's clip, its elements, which of them exist, and the step's length and dW there.

    dW is drawn and scaled by sqrt(dt), or read.
    """
    parts = tl.cdiv(groups, G)
    clip = (tl.program_id(0) // parts).to(tl.int64)
    first = (tl.program_id(0) % parts).to(tl.int64) * G
    component = first * 4 + tl.arange(0, 4 * G)
    live = component < size
    at = clip * size + component
    d = tl.load(dt + clip)
    if DRAWN:
        eps = block(seed, tl.load(serial + clip), tl.load(place + clip), groups, first, G)
        noise = eps * tl.sqrt(d)
    else:
        noise = tl.load(dw + at, mask=live, other=0.0).to(tl.float32)
    return clip, at, live, d, noise


@triton.jit(do_not_specialize=["seed"])
def _forward(
    z,
    drift,
    diffusion,
    control,
    width,
    dw,
    dt,
    serial,
    place,
    out,
    kl,
    seed,
    size,
    groups,
    CONTROL: tl.constexpr,
    WIDTH: tl.constexpr,
    DRAWN: tl.constexpr,
    G: tl.constexpr,
):
    _, at, live, d, noise = step_of(dt, dw, seed, serial, place, size, groups, DRAWN, G)
    g = tl.load(diffusion + at, mask=live, other=0.0).to(tl.float32)
    total = tl.load(drift + at, mask=live, other=0.0).to(tl.float32)
    scale, spent = g, tl.zeros_like(g)
    if CONTROL:
        u = tl.load(control + at, mask=live, other=0.0).to(tl.float32)
        total += g * u
        spent += 0.5 * u * u * d
    if WIDTH:
        r = tl.load(width + at, mask=live, other=1.0).to(tl.float32)
        scale = g * r
        spent += tl.where(d > 0, 0.5 * (r * r - 1) - tl.log(r), 0.0)
    moved = tl.load(z + at, mask=live, other=0.0) + total * d + scale * noise
    tl.store(out + at, moved, mask=live)
    tl.store(kl + tl.program_id(0), tl.sum(spent, 0))


@triton.jit(do_not_specialize=["seed"])
def _backward(
    grad,
    grad_kl,
    diffusion,
    control,
    width,
    dw,
    dt,
    serial,
    place,
    grad_drift,
    grad_diffusion,
    grad_control,
    grad_width,
    seed,
    size,
    groups,
    CONTROL: tl.constexpr,
    WIDTH: tl.constexpr,
    DRAWN: tl.constexpr,
    G: tl.constexpr,
):
    clip, at, live, d, noise = step_of(dt, dw, seed, serial, place, size, groups, DRAWN, G)
    for_kl, up = tl.load(grad_kl + clip), tl.load(grad + at, mask=live, other=0.0)
    g = tl.load(diffusion + at, mask=live, other=0.0).to(tl.float32)
    tl.store(grad_drift + at, (up * d).to(grad_drift.dtype.element_ty), mask=live)
    factor = noise
    if WIDTH:
        r = tl.load(width + at, mask=live, other=1.0).to(tl.float32)
        factor = noise * r
        value = up * g * noise + tl.where(d > 0, for_kl * (r - 1 / r), 0.0)
        tl.store(grad_width + at, value.to(grad_width.dtype.element_ty), mask=live)
    if CONTROL:
        u = tl.load(control + at, mask=live, other=0.0).to(tl.float32)
        factor += u * d
        value = (up * g + for_kl * u) * d
        tl.store(grad_control + at, value.to(grad_control.dtype.element_ty), mask=live)
    tl.store(grad_diffusion + at, (up * factor).to(grad_diffusion.dtype.element_ty), mask=live)


def grid_of(z: Tensor) -> tuple[int, int, int, int]:
    """Components and counters a clip, counters a program, and programs a clip."""
    size = z[0].numel()
    groups = triton.cdiv(size, LANES)
    block_of = min(_GROUPS, triton.next_power_of_2(groups))
    return size, groups, block_of, triton.cdiv(groups, block_of)


def _flags(control: Any, width: Any, dw: Any) -> dict[str, Any]:
    return {
        "CONTROL": control is not None,
        "WIDTH": width is not None,
        "DRAWN": dw is None,
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
    place: Tensor,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """The reference's step on contiguous float32 `z` (batch, *shape) and coefficients of its shape.

    Without `dw`, the noise is drawn: cell `place` of clip `serial`, times sqrt(dt).
    """
    size, groups, block_of, parts = grid_of(z)
    out = torch.empty_like(z)
    kl = z.new_empty(len(z), parts)
    keys = (dw, dt, serial, place)
    flags = _flags(control, width, dw)
    _forward[(parts * len(z),)](
        z,
        drift,
        diffusion,
        control,
        width,
        *keys,
        out,
        kl,
        seed,
        size,
        groups,
        **flags,
        G=block_of,
    )
    return out, kl.view(-1) if parts == 1 else kl.sum(1)


@em_step.register_fake
def _(z, drift, diffusion, control, width, dt, dw, serial, place, seed):
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
    place: Tensor,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of drift, diffusion, control and width; empty where one is absent."""
    size, groups, block_of, parts = grid_of(grad)
    outs = _gradients(grad, drift_like, diffusion, control, width)
    keys = (dw, dt, serial, place)
    flags = _flags(control, width, dw)
    _backward[(parts * len(grad),)](
        grad.contiguous(),
        grad_kl.contiguous(),
        diffusion,
        control,
        width,
        *keys,
        *outs,
        seed,
        size,
        groups,
        **flags,
        G=block_of,
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
    made = [
        torch.empty_like(grad, dtype=like.dtype) if like is not None else grad.new_empty(0)
        for like in (diffusion, control, width)
    ]
    first = torch.empty_like(grad, dtype=drift_like.dtype)
    return first, made[0], made[1], made[2]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, drift, diffusion, control, width, dt, dw, serial, place, ctx.seed = inputs
    like = drift.new_empty(0)  # the drift's type; its values are not needed
    ctx.save_for_backward(like, diffusion, control, width, dt, dw, serial, place)


def _pull_back(ctx: Any, grad: Tensor, grad_kl: Tensor) -> tuple[Tensor | None, ...]:
    made = em_step_backward(grad, grad_kl, *ctx.saved_tensors, ctx.seed)
    present = [value if value.numel() else None for value in made]
    return grad, *present, None, None, None, None, None


em_step.register_autograd(_pull_back, setup_context=_setup)


def run(
    z: Tensor,
    drift: Tensor,
    diffusion: Tensor,
    dt: Tensor,
    noise: tuple[int, Tensor, Tensor] | Tensor,
    control: Tensor | None,
    width: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`em_step` on any strides and shapes that broadcast. `noise`: (seed, serial, place) or dW."""
    like = [
        None if x is None else x.expand_as(z).contiguous()
        for x in (drift, diffusion, control, width)
    ]
    keys = noise_arguments(z, dt, noise)
    made: tuple[Tensor, Tensor] = em_step(z.contiguous(), *like, *keys)
    return made


def noise_arguments(z: Tensor, dt: Tensor, noise: tuple[int, Tensor, Tensor] | Tensor) -> Any:
    """dt, dw, serial, place and seed as the operators take them."""
    dt = dt.float().contiguous()
    if isinstance(noise, Tensor):
        nothing = dt.new_zeros(1, dtype=torch.int64)
        return dt, noise.expand_as(z).contiguous(), nothing, nothing, 0
    return dt, None, noise[1], noise[2], signed(noise[0])

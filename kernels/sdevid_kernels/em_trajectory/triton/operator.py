# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: ARG001
"""em_trajectory in one launch forward and one backward.

A program walks a block of rows through time: the state stays in registers, the weights in the
caches near it. Kept for the backward pass is the state, at every step or, where nothing else that
grows with them is at hand, at every few; no noise and no hidden layer. Weight gradients are summed
by each program as it walks back, and over the programs at the end.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from sdevid_kernels.em_trajectory.reference import Diffusion, Network, Posterior, Trajectory
from sdevid_kernels.em_trajectory.triton import passes
from sdevid_kernels.philox.kernel import signed

_ROWS = 16  # the least that tl.dot takes
TILES = {"TILE": 32, "K": 32, "F": 64, "num_warps": 8, "num_stages": 2}
_CHUNK = 8  # steps whose hidden layers a program holds at a time
_SUMS = 2**24  # elements of all programs' weight gradients, at most
_PROGRAMS = 132  # that sum weight gradients: as many as an H100 runs at once


class Form(NamedTuple):
    """What a launch is about, as the operators' schemas take it."""

    seed: int
    numbers: list[float]  # floor, start, unit, bound (0: none)
    flags: list[int]  # outputs of the control in states (0 to 2), BENDS, UNIT of coefficients.py
    points: int  # saved
    chunk: int  # steps between two anchors


def networks_of(flat: list[Tensor]) -> tuple[Tensor, Any]:
    """A network's shift, and the rest as the kernels take it."""
    first, shift, *inner, last, bias = flat
    pairs = tuple(zip(inner[::2], inner[1::2], strict=True))
    return shift, (first, pairs, last, bias)


def span_of(network: list[Tensor]) -> int:
    """Elements of a network's weight gradients: of all but its shift."""
    return sum(x.numel() for place, x in enumerate(network) if place != 1)


def _settings(
    z: Tensor, depth: int, form: Form, drawn: bool, control: list[Tensor], steps: int, again: bool
) -> dict[str, Any]:
    padded = max(16, triton.next_power_of_2(z.shape[-1]))
    exact = "ieee" if z.device.type == "cpu" else "tf32x3"
    heads, bends, unit = form.flags
    return {
        "HEADS": heads,
        "BENDS": bends,
        "UNIT": unit,
        "BOUND": form.numbers[3] > 0,
        "DRAWN": drawn,
        "AGAIN": again,
        "STILL": bool(control) and len(control[1]) == 1 < steps,
        "L": depth,
        "D": padded,
        "R": _ROWS,
        "P": "tf32" if torch.backends.cuda.matmul.allow_tf32 else exact,
        **TILES,
    }


def _common(
    drift: list[Tensor], control: list[Tensor], diffusion: list[Tensor]
) -> tuple[int, tuple[Any, ...]]:
    shift, first = networks_of(drift)
    shift_c, second = networks_of(control) if control else (shift, None)
    slope = diffusion[1] if len(diffusion) > 1 else None
    return len(first[1]) + 1, (first, second, shift, shift_c, diffusion[0], slope)


@torch.library.custom_op("sdevid::em_trajectory", mutates_args=())
def em_trajectory(
    z: Tensor,
    drift: list[Tensor],
    control: list[Tensor],
    diffusion: list[Tensor],
    dt: Tensor,
    dw: Tensor | None,
    serial: Tensor,
    place: Tensor,
    kept: Tensor,
    seed: int,
    numbers: list[float],
    flags: list[int],
    points: int,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The reference's chain, and the states at every `chunk`-th point.

    `drift` and `control`: first weight, shift, weight and bias of each further hidden layer, last
    weight, bias; `control` is empty for the prior. `diffusion`: g, or level and slope. Without `dw`
    the noise is drawn: cells `place` (steps, clips) of the clips `serial`, a clip's rows being
    neighbours. `kept` (steps + 1) is each point's place among the `points` saved ones, or -1.
    `chunk` 0: all are saved, and no others are kept. The rest as in `Form`.
    """
    form = Form(seed, numbers, flags, points, chunk)
    steps, rows = dt.shape
    states = z.new_empty(points, *z.shape)
    anchors = z.new_empty(triton.cdiv(steps, chunk) if chunk else 0, *z.shape)
    energy, width_kl = z.new_empty(rows), z.new_empty(rows)
    depth, given = _common(drift, control, diffusion)
    programs, width = triton.cdiv(rows, _ROWS), len(drift[0])
    work = z.new_empty(programs, _ROWS, z.shape[1] + 2 * (depth - 1) * width)
    noise = (dw, seed, serial, place, len(serial), rows // len(serial))
    outs = (kept, states, anchors, energy, width_kl, work)
    sizes = (rows, z.shape[1], width, steps, chunk)
    settings = _settings(z, depth, form, dw is None, control, steps, chunk > 0)
    passes.forward[(programs,)](z, given, tuple(numbers), *noise, dt, *outs, *sizes, **settings)
    return states, energy, width_kl, anchors


@em_trajectory.register_fake
def _(
    z, drift, control, diffusion, dt, dw, serial, place, kept, seed, numbers, flags, points, chunk
):
    rows = z.new_empty(len(z))
    anchors = z.new_empty(-(-len(dt) // chunk) if chunk else 0, *z.shape)
    return z.new_empty(points, *z.shape), rows, torch.empty_like(rows), anchors


@torch.library.custom_op("sdevid::em_trajectory_backward", mutates_args=())
def em_trajectory_backward(
    anchors: Tensor,
    grad_states: Tensor,
    grad_energy: Tensor,
    grad_width: Tensor,
    drift: list[Tensor],
    control: list[Tensor],
    diffusion: list[Tensor],
    dt: Tensor,
    dw: Tensor | None,
    serial: Tensor,
    place: Tensor,
    kept: Tensor,
    seed: int,
    numbers: list[float],
    flags: list[int],
    points: int,
    chunk: int,
) -> list[Tensor]:
    """Gradients of z; of the diffusion's tensors; of the drift's shift; of the control's, if any;
    and last of all weights in one vector, the drift's before the control's."""
    form = Form(seed, numbers, flags, points, chunk)
    steps, (rows, size) = len(dt), anchors.shape[1:]
    depth, given = _common(drift, control, diffusion)
    width, span = len(drift[0]), span_of(drift) + (span_of(control) if control else 0)
    programs = min(triton.cdiv(rows, _ROWS), _PROGRAMS, max(1, _SUMS // span))
    chunk = chunk if chunk > 1 else min(_CHUNK, steps)
    each = chunk * _ROWS * (size + (3 * depth * width + size) + (3 * depth * width + 2 * size))
    work, totals = anchors.new_empty(programs, each), anchors.new_empty(programs, span)
    outs = [torch.empty_like(anchors[0]) for _ in range(1 + len(diffusion))]
    shifts = [torch.empty_like(network[1]) for network in (drift, control) if network]
    noise = (dw, seed, serial, place, len(serial), rows // len(serial))
    sizes = (rows, size, width, steps, chunk, each, span)
    grads = (grad_states.contiguous(), grad_energy.contiguous(), grad_width.contiguous())
    made = (*outs, *[None] * (3 - len(outs)), *shifts, *[None] * (2 - len(shifts)))
    settings = _settings(anchors, depth, form, dw is None, control, steps, form.chunk > 1)
    passes.backward[(programs,)](
        anchors,
        *grads,
        given,
        tuple(numbers),
        *noise,
        dt,
        kept,
        *made,
        totals,
        work,
        *sizes,
        **settings,
    )
    return [*outs, *shifts, totals.view(-1) if programs == 1 else totals.sum(0)]


@em_trajectory_backward.register_fake
def _(anchors, grad_states, grad_energy, grad_width, drift, control, diffusion, *_rest):
    outs = [torch.empty_like(anchors[0]) for _ in range(1 + len(diffusion))]
    shifts = [torch.empty_like(network[1]) for network in (drift, control) if network]
    span = span_of(drift) + (span_of(control) if control else 0)
    return [*outs, *shifts, anchors.new_empty(span)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, drift, control, diffusion, dt, dw, serial, place, kept, *ctx.form = inputs
    ctx.counts = (len(drift), len(control), len(diffusion))
    states, _, _, anchors = output
    ctx.mark_non_differentiable(anchors)
    ctx.set_materialize_grads(False)
    start = anchors if ctx.form[-1] else states
    given = (*drift, *control, *diffusion)
    ctx.save_for_backward(start, *given, dt, dw, serial, place, kept)


def _pull_back(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    start, *saved = ctx.saved_tensors
    first, second, third = ctx.counts
    drift, control = list(saved[:first]), list(saved[first : first + second])
    diffusion, rest = list(saved[first + second :][:third]), saved[first + second + third :]
    rows, points = start.shape[1], ctx.form[-2]
    shapes = ((points, *start.shape[1:]), (rows,), (rows,))
    found = [
        start.new_zeros(shape) if grad is None else grad
        for grad, shape in zip(grads[:3], shapes, strict=True)
    ]
    made = em_trajectory_backward(start, *found, drift, control, diffusion, *rest, *ctx.form)
    grad_z, to_diffusion, shifts = made[0], made[1 : 1 + third], made[1 + third : -1]
    to_drift, end = _unpack(made[-1], drift, shifts[0], 0)
    to_control = _unpack(made[-1], control, shifts[1], end)[0] if control else []
    return grad_z, to_drift, to_control, to_diffusion, *[None] * 10


def _unpack(flat: Tensor, like: list[Tensor], shift: Tensor, at: int) -> tuple[list[Tensor], int]:
    """A network's gradients, cut from `flat` from `at` on, and where they end."""
    made = []
    for place, tensor in enumerate(like):
        if place == 1:
            made.append(shift)
            continue
        made.append(flat[at : at + tensor.numel()].view_as(tensor))
        at += tensor.numel()
    return made, at


em_trajectory.register_autograd(_pull_back, setup_context=_setup)


def _places(saved: tuple[int, ...] | None, steps: int, device: torch.device) -> Tensor:
    """Each point's place among the saved ones, or -1."""
    make = _new_places if torch.compiler.is_compiling() else _cached_places
    return make(saved, steps, device)


def _new_places(saved: tuple[int, ...] | None, steps: int, device: torch.device) -> Tensor:
    if saved is None:
        return torch.arange(steps + 1, device=device)
    places = torch.full((steps + 1,), -1)
    places[list(saved)] = torch.arange(len(saved))
    return places.to(device)


_cached_places = lru_cache(maxsize=64)(_new_places)  # or each call copies to the device, and waits


def _flat(network: Network, shift: Tensor) -> list[Tensor]:
    inner = [x for pair in network.hidden for x in pair]
    return [x.float().contiguous() for x in (network.first, shift, *inner, *network.last)]


def form_of(
    diffusion: Tensor | Diffusion,
    posterior: Posterior | None,
    seed: int,
    saved: tuple[int, ...] | None,
    steps: int,
) -> Form:
    """The launch's constants.

    Where all states are saved, there are no other anchors. Where the control's shifts differ from
    step to step, which takes more memory than the states, every state is one, and none is solved
    again.
    """
    floor, start, bends = 0.0, 0.0, 0
    if isinstance(diffusion, Diffusion):
        floor, start, bends = diffusion.floor, diffusion.start, 1 + diffusion.stratonovich
    heads, unit, bound, latent = 0, 0, 0.0, 1.0
    if posterior is not None:
        reading = posterior.reading
        heads, bound = 1 + reading.width, reading.bound or 0.0
        if reading.unit is not None:
            unit, latent = 1 + reading.own, reading.unit
    points = steps + 1 if saved is None else len(saved)
    alike = posterior is None or len(posterior.shifts) == 1
    chunk = 0 if saved is None else min(steps, _CHUNK) if alike else 1
    return Form(seed, [floor, start, latent, bound], [heads, bends, unit], points, chunk)


def run(
    z: Tensor,
    drift: Network,
    drift_shift: Tensor,
    diffusion: Tensor | Diffusion,
    posterior: Posterior | None,
    dt: Tensor,
    noise: tuple[int, Tensor, Tensor] | Tensor,
    saved: tuple[int, ...] | None,
) -> Trajectory:
    """`em_trajectory` on any strides. `noise`: (seed, serial, place (steps, clips)) or dW."""
    if isinstance(noise, Tensor):
        nothing = _places(None, 0, z.device)
        keys: tuple[Any, ...] = (noise.contiguous(), nothing, nothing)
        seed = 0
    else:
        keys = (None, noise[1], noise[2].contiguous())
        seed = signed(noise[0])
    if isinstance(diffusion, Diffusion):
        assert diffusion.slope is not None  # settled before
        parts = [diffusion.level, diffusion.slope]
    else:
        parts = [diffusion]
    made = em_trajectory(
        z.contiguous(),
        _flat(drift, drift_shift),
        [] if posterior is None else _flat(posterior.network, posterior.shifts),
        [part.expand_as(z).contiguous() for part in parts],
        dt.contiguous(),
        *keys,
        _places(saved, len(dt), z.device),
        *form_of(diffusion, posterior, seed, saved, len(dt)),
    )
    return Trajectory(*made[:3])

"""What em_trajectory takes: checked once a call, never a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdevid_kernels import runtime
from sdevid_kernels.em_trajectory.reference import Diffusion, Network, Posterior

NAME = "em_trajectory"
Key = tuple[int, Tensor, Tensor]


def check_arguments(
    z: Tensor,
    drift: Network,
    drift_shift: Tensor,
    diffusion: Tensor | Diffusion,
    posterior: Posterior | None,
    dt: Tensor,
    noise: Key | Tensor,
    saved: Sequence[int] | None,
    finite: bool = True,
) -> None:
    """Raise ValueError where a shape, device, time, g or setting does not fit the state."""
    if z.dim() != 2:
        raise ValueError(f"{NAME}: the state has shape {_shape(z)}; give (rows, d)")
    _network("drift", drift, z, z.shape[1])
    tensors = {"dt": dt, "drift_shift": drift_shift, **_of_diffusion(diffusion)}
    if posterior is not None:
        _posterior(posterior, z)
        tensors["shifts"] = posterior.shifts
    runtime.same_device(NAME, z, **tensors)
    if dt.dim() != 2 or dt.shape[1] != len(z):
        raise ValueError(f"{NAME}: dt has shape {_shape(dt)}; give (steps, {len(z)} rows)")
    hidden = (len(z), len(drift.first))
    _same("drift_shift", drift_shift, hidden)
    for name, tensor in _of_diffusion(diffusion).items():
        runtime.broadcastable(NAME, z, **{name: tensor})
    if posterior is not None:
        steps = 1 if len(posterior.shifts) == 1 else len(dt)
        wanted = (steps, len(z), len(posterior.network.first))
        _same("the posterior's shifts", posterior.shifts, wanted)
    _noise(noise, z, len(dt))
    _points(saved, len(dt))
    _values(diffusion, dt, finite)


def _noise(noise: Key | Tensor, z: Tensor, steps: int) -> None:
    if isinstance(noise, Tensor):
        runtime.same_device(NAME, z, noise=noise)
        _same("noise", noise, (steps, *z.shape))
        return
    _, serial, cell = noise
    runtime.same_device(NAME, z, serials=serial, cells=cell)
    if serial.dim() != 1 or not len(serial) or len(z) % len(serial):
        raise ValueError(
            f"{NAME}: the serials have shape {_shape(serial)}, but the state's {len(z)} rows must "
            "be as many of each clip; give one serial a clip"
        )
    _same("the noise's cells", cell, (steps, len(serial)))


def _points(saved: Sequence[int] | None, steps: int) -> None:
    if saved is None:
        return
    points = list(saved)
    if not points or points != sorted(set(points)) or points[0] < 0 or points[-1] > steps:
        raise ValueError(
            f"{NAME}: saved is {points}, but it must name points 0 to {steps} in rising order"
        )


def _of_diffusion(diffusion: Tensor | Diffusion) -> dict[str, Tensor]:
    if isinstance(diffusion, Tensor):
        return {"diffusion": diffusion}
    if (diffusion.slope is None) != (diffusion.curve is None):
        raise ValueError(
            f"{NAME}: the diffusion has a slope or a curve alone; give both or neither"
        )
    terms = {"level": diffusion.level, "slope": diffusion.slope, "curve": diffusion.curve}
    return {f"the diffusion's {name}": term for name, term in terms.items() if term is not None}


def _posterior(posterior: Posterior, z: Tensor) -> None:
    _network("control", posterior.network, z, z.shape[1] * (2 if posterior.reading.width else 1))
    reading = posterior.reading
    if reading.own and reading.unit is None:
        raise ValueError(f"{NAME}: a posterior with a drift of its own has no unit; give one")
    for name, value in (("bound", reading.bound), ("unit", reading.unit)):
        if value is not None and not value > 0:
            raise ValueError(
                f"{NAME}: the posterior's {name} is {value}; give one above 0, or None"
            )


def _network(name: str, network: Network, z: Tensor, outputs: int) -> None:
    """Check that each layer takes the outputs of the one before and lies where the state does."""
    wide = z.shape[1]
    layers = [(network.first, None), *network.hidden, network.last]
    for index, (weight, bias) in enumerate(layers):
        layer = f"layer {index} of {name}"
        runtime.same_device(NAME, z, **{f"the weight of {layer}": weight})
        last = index == len(layers) - 1
        if weight.dim() != 2 or weight.shape[1] != wide or (last and len(weight) != outputs):
            wanted = f"({outputs if last else 'hidden'}, {wide})"
            raise ValueError(
                f"{NAME}: the weight of {layer} has shape {_shape(weight)} for a state of shape "
                f"{_shape(z)}; give {wanted}"
            )
        wide = len(weight)
        if bias is not None:
            runtime.same_device(NAME, z, **{f"the bias of {layer}": bias})
            _same(f"the bias of {layer}", bias, (wide,))


def _same(name: str, tensor: Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != wanted:
        raise ValueError(f"{NAME}: {name} has shape {_shape(tensor)}; give {wanted}")


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _values(diffusion: Tensor | Diffusion, dt: Tensor, finite: bool) -> None:
    """Check dt >= 0, and g above 0 and `finite`. On CUDA the device asserts, so nothing waits."""
    rule = "a step needs a time of 0 s (it then changes nothing) or more"
    _all(dt >= 0, f"{NAME}: dt holds {{}}, but {rule}; sort each clip's times", dt)
    if isinstance(diffusion, Tensor):
        advice = "the path KL compares noises of a finite g > 0; use a floor: 0.01 + softplus(.)"
        sound = (diffusion > 0) & diffusion.isfinite() if finite else ~(diffusion <= 0)
        _all(sound, f"{NAME}: diffusion holds {{}}, but {advice}", diffusion)
        return
    if diffusion.floor < 0:
        raise ValueError(f"{NAME}: the diffusion's floor is {diffusion.floor}; give 0 or more")
    for name, tensor in _of_diffusion(diffusion).items() if finite else ():
        _all(tensor.isfinite(), f"{NAME}: {name} holds {{}}; check the network it is from", tensor)


def _all(sound: Tensor, message: str, values: Tensor) -> None:
    if values.is_meta or torch.compiler.is_compiling():
        return
    if values.is_cuda:
        torch._assert_async(sound.all(), message.format("a bad value"))
    elif not bool(sound.all()):
        raise ValueError(message.format(f"{float(values[~sound][0]):g}"))

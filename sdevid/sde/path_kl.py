"""KL between the posterior and the prior path measure, in nats per clip.

Two bounds. Continuous: Girsanov's 1/2 E int |u|^2 dt for two SDEs that share their diffusion.
Chain: the exact KL of two Euler-Maruyama chains, whose posterior step N(z + (h + g u) d, r^2 g^2 d)
may also be narrower than the prior's N(z + h d, g^2 d):

    1/2 |u|^2 d + sum(1/2 (r^2 - 1) - log r)

which is Girsanov's where r = 1. Sums are float32 or wider.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from sdevid_kernels.em_step import reference
from torch import Tensor

from sdevid.sde.problem import Step


def control_energy(
    control: Float[Tensor, "batch steps *shape"], dt: Float[Tensor, "batch steps"]
) -> Float[Tensor, " batch"]:
    """Sum 1/2 |u|^2 dt along each path, in nats. `control` is per sqrt(time) of `dt`."""
    return _total(reference.control_energy, control, dt)


def width_kl(
    width: Float[Tensor, "batch steps *shape"], dt: Float[Tensor, "batch steps"]
) -> Float[Tensor, " batch"]:
    """Sum 1/2 (r^2 - 1) - log r along each path, in nats; a step of no time adds none."""
    return _total(reference.width_kl, width, dt)


def _total(each: Callable[[Tensor, Tensor], Tensor], values: Tensor, dt: Tensor) -> Tensor:
    wide = values.to(torch.promote_types(values.dtype, torch.float32)).flatten(2)
    return each(wide, dt.to(wide.dtype)[..., None]).flatten(1).sum(1)


def log_ratio(
    steps: list[Step],
    dw: Float[Tensor, "batch steps *shape"],
    spans: Float[Tensor, "batch steps"],
) -> Float[Tensor, " batch"]:
    """Compute log p / q of a controlled path, in nats: its mean is minus the chain's KL.

    Of a step log r + 1/2 eps^2 - 1/2 (u sqrt(d) + r eps)^2, eps = dW / sqrt(d), by component.
    """
    total = dw.new_zeros(len(dw))
    for step, increment, span in zip(steps, dw.unbind(1), spans.unbind(1), strict=True):
        root = span.sqrt().view(-1, *[1] * (increment.dim() - 1))
        eps = torch.where(root > 0, increment / root.clamp(min=1e-12), 0.0)
        width = torch.ones_like(eps) if step.width is None else step.width
        control = 0.0 if step.control is None else step.control
        ratio = width.log() + 0.5 * eps.square() - 0.5 * (control * root + width * eps).square()
        total = total + torch.where(root > 0, ratio, 0.0).flatten(1).sum(1)
    return total

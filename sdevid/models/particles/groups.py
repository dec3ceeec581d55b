"""Which particles draw one thing: each climbs to the nearest peak of what is present."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sdevid.models.particles.state import Positions

CLIMBS = 8  # steps of the mean shift

Membership = Float[Tensor, "batch particles particles"]  # rows sum to 1


def membership(
    born: Positions, logit: Float[Tensor, "batch particles 1"], width: float
) -> Membership:
    """Weigh, for each particle, those that draw the same thing, by the mean shift.

    From its place at birth each climbs to a peak of the sum over particles of presence times a
    Gaussian of standard deviation `width`, in pixels, at their places; its weights are what that
    sum is made of there, alike for all that end at one peak. Two equal particles less than 2
    `width` apart have one peak. Fukunaga and Hostetler, "The estimation of the gradient of a
    density function", 1975.
    """
    place = born = born.float()
    presence = functional.logsigmoid(logit.float()).transpose(1, 2)
    for _ in range(CLIMBS):
        apart = torch.cdist(place, born).square()
        weights = (presence - 0.5 * apart / width**2).softmax(-1)
        place = weights @ born
    return weights

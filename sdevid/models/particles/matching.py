"""Where a patch went: compare it with a frame around a place, from coarse shifts to fine ones."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sdevid.models.particles.placing import Patches, crops
from sdevid.models.particles.state import Positions

COARSE, FINE = 8, 2  # furthest shift looked at, pixels, by steps of 2 and of 1
BARE = 0.3  # weight of a pixel that the patch leaves bare


STEEP = 100.0, 200.0  # of the coarse and the fine soft minimum


class Match(NamedTuple):
    """Where patches were found."""

    shift: Float[Tensor, "batch particles 2"]  # from where they were looked for, pixels
    chances: Float[Tensor, "batch particles compared"]  # of each shift that was compared


@torch.no_grad()
def match(
    frames: Float[Tensor, "batch channels side side"], patches: Patches, positions: Positions
) -> Match:
    """Find each patch near its position in `frames`, which are less their ground.

    The shift is a soft minimum of the weighted squared difference between patch and frame. No
    gradient passes: a network that corrects the shift learns from what the patch then paints.
    """
    patch = patches.shape[-1]
    wide = crops(frames, positions, patch + 2 * COARSE)
    coarse = (-STEEP[0] * differences(halved(wide), halved(patches))).softmax(-1)
    shift = mean_shift(coarse, 2.0)
    near = crops(frames, positions + shift, patch + 2 * FINE)
    fine = (-STEEP[1] * differences(near, patches)).softmax(-1)
    return Match(shift + mean_shift(fine, 1.0), torch.cat([coarse, fine], dim=-1))


def halved(patches: Patches) -> Float[Tensor, "batch particles shades half half"]:
    """Average blocks of 2 x 2 pixels."""
    half: Tensor = functional.avg_pool2d(patches.flatten(0, 1), 2)
    return torch.unflatten(half, 0, patches.shape[:2])


def differences(wide: Tensor, patches: Patches) -> Float[Tensor, "batch particles shifts"]:
    """Compute the mean weighted squared difference at each shift of the patch within `wide`.

    A part that is the same at every shift is left out.
    """
    many, patch = wide.shape[:2], patches.shape[-1]
    colour, opacity = patches[:, :, :-1].flatten(0, 1), patches[:, :, -1:].flatten(0, 1)
    weight = BARE + (1 - BARE) * opacity
    windows = functional.unfold(wide.flatten(0, 1), patch)  # (n, channels * pixels, shifts)
    wanted = (weight * colour).flatten(1)[:, None]
    spread = weight.expand_as(colour).flatten(1)[:, None]
    parts = spread @ windows.square() - 2 * wanted @ windows
    return torch.unflatten(parts[:, 0] / spread.sum(-1), 0, many)


def mean_shift(chance: Float[Tensor, "*batch shifts"], step: float) -> Float[Tensor, "*batch 2"]:
    """Average the shift (x, y) over a square grid of shifts, row by row, `step` pixels apart."""
    side = math.isqrt(chance.shape[-1])
    axis = (torch.arange(side, device=chance.device) - side // 2) * step
    down, across = torch.meshgrid(axis, axis, indexing="ij")
    return chance @ torch.stack([across, down], dim=-1).flatten(0, 1).to(chance)

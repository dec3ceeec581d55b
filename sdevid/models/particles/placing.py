"""Patches placed on a canvas between pixels, and cut from one: bilinear, as two small products."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sdevid.models.particles.state import Positions

Patches = Float[Tensor, "batch particles shades patch patch"]


def hat(
    middle: Float[Tensor, "*batch"], patch: int, side: int
) -> Float[Tensor, "*batch side patch"]:
    """Weigh each of `patch` pixels around `middle` in each of `side` pixels of an axis.

    Row y holds max(0, 1 - |y - y_u|) for the patch's pixel u at y_u = middle + u - (patch - 1) / 2,
    so that a middle at a whole pixel (a half one, where `patch` is even) moves pixels to pixels.
    """
    offset = torch.arange(patch, device=middle.device) - (patch - 1) / 2
    canvas = torch.arange(side, device=middle.device)
    apart = canvas[:, None] - (middle[..., None, None] + offset)
    return (1 - apart.abs()).clamp(min=0)


def placed(
    patches: Patches, positions: Positions, side: int
) -> Float[Tensor, "batch particles shades side side"]:
    """Place each patch with its middle at its position (x, y), in pixels; 0 around it."""
    patch = patches.shape[-1]
    down = hat(positions[..., 1], patch, side)[:, :, None].to(patches)
    across = hat(positions[..., 0], patch, side)[:, :, None].to(patches)
    return down @ patches @ across.transpose(-1, -2)


def crops(
    frames: Float[Tensor, "batch channels side side"], positions: Positions, patch: int
) -> Patches:
    """Cut a patch around each position: the adjoint of `placed`; 0 outside the frame."""
    side = frames.shape[-1]
    down = hat(positions[..., 1], patch, side)[:, :, None].to(frames)
    across = hat(positions[..., 0], patch, side)[:, :, None].to(frames)
    return down.transpose(-1, -2) @ frames[:, None] @ across


def composed(
    ground: Float[Tensor, "batch channels side side"], patches: Patches, positions: Positions
) -> Tensor:
    """Lay the patches over `ground`, the first one at the bottom.

    A patch's channels are its colours times its opacity, and last its opacity.
    """
    layers = placed(patches, positions, ground.shape[-1])
    for layer in layers.unbind(1):
        ground = ground * (1 - layer[:, -1:]) + layer[:, :-1]
    return ground


def relative(patches: Patches, bare: Float[Tensor, "batch channels"]) -> Patches:
    """Subtract the ground's colour from patches of colour times opacity."""
    opacity = patches[:, :, -1:]
    return torch.cat([patches[:, :, :-1] - opacity * bare[:, None, :, None, None], opacity], dim=2)

"""KEY.mask: what of a clip was not observed, beside frames whose type has no NaN.

A boolean npy (time, height, width, channels), true where nothing was observed; axes may be 1 where
they are alike, as (time, 1, 1, 1) of frames that are missing. Only clips that lack something have
one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from sdevid.data.npy import read_npy, write_npy
from sdevid.data.payload import Shape

MASK = "mask"  # the member's extension
Mask = Bool[np.ndarray, "time #height #width #channels"]


def of_frames(missing: Sequence[int], count: int) -> Mask | None:
    """Build the mask (frames, 1, 1, 1) of whole missing frames; None where none is missing."""
    if not missing:
        return None
    mask = np.zeros((count, 1, 1, 1), bool)
    mask[list(missing)] = True
    return mask


def encode(mask: Mask) -> bytes:
    """Encode as the bytes of one tar member; the same mask gives the same bytes."""
    return write_npy(mask)


def decode(content: bytes, shape: Shape) -> Mask:
    """Decode a member's bytes as the mask of a clip of `shape`. ValueError where they hold none."""
    try:
        mask = read_npy(content)
    except ValueError as error:
        raise ValueError(f"its {MASK} does not decode: {error}") from error
    fits = mask.ndim == len(shape) and mask.shape[0] == shape[0]
    fits = fits and all(has in (1, side) for has, side in zip(mask.shape, shape, strict=True))
    if mask.dtype != bool or not fits:
        raise ValueError(f"its {MASK} holds {mask.dtype} {mask.shape}, not bool for {shape}")
    return mask

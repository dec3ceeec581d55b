"""Drawn film of dark blobs, each of which moves by a known SDE: identities and places are kept.

Lengths are in pixels of the film. Those below are for frames of 64 pixels and grow with the frame;
D grows with its square. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8
from scipy.special import expit

from sdevid.data.drawn import Drawing
from sdevid.data.spec import CutSpec
from sdevid.data.synthetic import HALF_WIDTH, DoubleWell, OrnsteinUhlenbeck

MotionName = Literal["brownian", "ou", "double-well"]
MOTIONS: tuple[MotionName, ...] = ("brownian", "ou", "double-well")

SIDE = 64  # pixels of the frame that the lengths below are for
DIFFUSION = 3.25  # pixel^2 / s: that of 1-micron spheres in water, 2.85 pixels a micron
WALL = 4.0  # pixels from the frame's edge at which a Brownian blob is reflected
COUNT = (3, 6)  # blobs a clip
RADII = (3.0, 5.0)  # pixels
CONTRASTS = (0.2, 0.3)  # of a blob below the ground, in [0, 1]
GROUND, EDGE, NOISE = 0.75, 0.7, 0.02  # grey, pixels of the blob's soft edge, sd of a pixel
PULL = OrnsteinUhlenbeck(theta=0.25, sigma=0.5)  # along both axes, or along y of the double well
WELL = DoubleWell()

Positions = Float[np.ndarray, "time blobs 2"]  # (x, y), pixels; x to the right, y down


@dataclass(frozen=True)
class Blob:
    """What is seen of one blob; its number in the clip is its identity."""

    radius: float  # pixels
    contrast: float  # below the ground


@dataclass(frozen=True)
class BlobFilm:
    """Films of blobs, each with the motion `motion`: independent, along both axes.

    `brownian_diffusion` is D of Brownian motion, in pixel^2 / s of a frame of 64.
    """

    motion: MotionName = "brownian"
    brownian_diffusion: float = DIFFUSION

    def clips(self, rng: np.random.Generator, count: int, spec: CutSpec) -> Iterator[Drawing]:
        """Yield `count` clips, each with its blobs and their places, in pixels, at each frame."""
        times = np.arange(spec.clip_length) / spec.fps
        scale = spec.frame_size / SIDE
        for _ in range(count):
            number = int(rng.integers(COUNT[0], COUNT[1] + 1))
            blobs = [
                Blob(scale * rng.uniform(*RADII), rng.uniform(*CONTRASTS)) for _ in range(number)
            ]
            positions = scale * self.positions(rng, number, times)
            video = draw(positions, blobs, spec.frame_size, rng)
            metadata = {
                "blobs": [asdict(blob) for blob in blobs],
                "places": positions.round(4).tolist(),
            }
            yield video, metadata

    def positions(
        self, rng: np.random.Generator, blobs: int, times: Float[np.ndarray, " time"]
    ) -> Positions:
        """Draw positions of `blobs` at `times`, in pixels of a frame of 64."""
        if self.motion == "brownian":
            return _reflected(rng, blobs, times, self.brownian_diffusion)
        along_x = WELL if self.motion == "double-well" else PULL
        units = np.stack([sde.simulate(rng, blobs, times) for sde in (along_x, PULL)], axis=-1)
        return (SIDE - 1) / 2 + units.swapaxes(0, 1) * (SIDE / 2 / HALF_WIDTH)

    def diffusion(self, frame_size: int) -> dict[str, float]:
        """Compute D = sigma^2 / 2 along each axis, in pixel^2 / s at this frame size."""
        if self.motion == "brownian":
            along = dict.fromkeys("xy", self.brownian_diffusion)
        else:
            scale = SIDE / 2 / HALF_WIDTH
            first = WELL.sigma if self.motion == "double-well" else PULL.sigma
            along = {"x": first**2 / 2 * scale**2, "y": PULL.sigma**2 / 2 * scale**2}
        return {axis: d * (frame_size / SIDE) ** 2 for axis, d in along.items()}

    def truth(self) -> dict[str, Any]:
        """Describe the motion for dataset.json; lengths are in pixels of a frame of `side`."""
        laws: dict[MotionName, dict[str, Any]] = {
            "brownian": {"walls": [WALL, SIDE - WALL]},
            "ou": {"x": asdict(PULL), "y": asdict(PULL)},
            "double-well": {"x": asdict(WELL), "y": asdict(PULL)},
        }
        metadata = {"motion": self.motion, "side": SIDE, "diffusion": self.diffusion(SIDE)}
        return {"particles": metadata | laws[self.motion]}


def _reflected(
    rng: np.random.Generator, blobs: int, times: Float[np.ndarray, " time"], diffusion: float
) -> Positions:
    """Draw Brownian motion between walls, in pixels: a free path folded back, which is exact."""
    free = rng.uniform(WALL, SIDE - WALL, (blobs, 2))[None]
    for step in np.diff(times):
        free_end = free[-1] + np.sqrt(2 * diffusion * step) * rng.standard_normal((blobs, 2))
        free = np.concatenate([free, free_end[None]])
    room = SIDE - 2 * WALL
    folded: Positions = SIDE - WALL - np.abs((free - WALL) % (2 * room) - room)
    return folded


def draw(
    positions: Positions, blobs: list[Blob], frame_size: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "time height width 1"]:
    """Draw dark blobs with soft edges and pixel noise on grey ground; the darkest covers others.

    `positions` (time, blobs, 2) are in pixels of the frame.
    """
    pixel = np.arange(frame_size, dtype=np.float32)
    dark = np.zeros((len(positions), frame_size, frame_size), np.float32)
    for number, blob in enumerate(blobs):
        x, y = positions[:, number].T.astype(np.float32)
        distance = np.hypot(
            pixel[None, None, :] - x[:, None, None], pixel[None, :, None] - y[:, None, None]
        )
        softness = EDGE * frame_size / SIDE
        cover = blob.contrast * expit((np.float32(blob.radius) - distance) / np.float32(softness))
        dark = np.maximum(dark, cover)
    grey = GROUND - dark + NOISE * rng.standard_normal(dark.shape, np.float32)
    film: UInt8[np.ndarray, "time height width 1"] = np.rint(255 * grey.clip(0, 1)).astype(np.uint8)
    return film[..., None]

"""Stochastic Moving MNIST: the three generators that are published under this name.

Each digit moves straight on until it meets a wall, which is where chance comes in. Pixels are
those of a 64 x 64 frame; a step is the time between two frames.

svg    Denton & Fergus 2018. Digits of 32 pixels, whole pixels a step from -4 to 4. One found past
       a wall is put at the wall (at 31 of 32 on the far side) and both components are drawn anew,
       the one off the wall from 1 to 4; where it is past two, x is drawn last and undoes y.
srvp   Franceschi et al. 2020. Digits of 28 pixels. The wall is met where and when the straight
       path meets it; both components are drawn anew from -4 to 4, that off the wall made to
       point away, and the rest of the step is walked with them. A digit may come to rest.
nsf    Our reading of Kiyohara, Johns & Li 2025, not compared with their generator: nothing is
       rounded. The wall is met as in srvp; the speed stays, the direction off the wall is drawn
       evenly from the half circle, and digits are drawn between pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from sdevid.data.digits import Glyphs, read_mnist
from sdevid.data.drawn import Drawing
from sdevid.data.spec import CutSpec
from sdevid.errors import UserError

SIDE = 64  # pixels of a frame, before it is made smaller
FASTEST = 4  # pixels a step, along an axis
Generator = Literal["svg", "srvp", "nsf"]


class Course(NamedTuple):
    """Where a digit is."""

    corner: Float[np.ndarray, "time 2"]  # (x, y) of its upper left, in pixels
    bounced: list[int]  # frames before which it met a wall


def svg(rng: np.random.Generator, frames: int) -> Course:
    """Draw a path by Denton & Fergus 2018, in whole pixels."""
    room = SIDE - DIGIT["svg"]
    place, speed = rng.integers(0, room, 2), rng.integers(-FASTEST, FASTEST + 1, 2)
    corner, bounced = np.empty((frames, 2)), []
    for frame in range(frames):
        for axis in (1, 0):
            away = int(place[axis] < 0) - int(place[axis] >= room)
            if away:
                place[axis] = 0 if away > 0 else room - 1
                speed = rng.integers(-FASTEST, FASTEST + 1, 2)
                speed[axis] = away * rng.integers(1, FASTEST + 1)
                bounced.append(frame)
        corner[frame] = place
        place = place + speed
    return Course(corner, sorted(set(bounced)))


def srvp(rng: np.random.Generator, frames: int) -> Course:
    """Draw a path by Franceschi et al. 2020, rounded to pixels."""
    room = SIDE - DIGIT["srvp"]

    def anew(_: Float[np.ndarray, " 2"], away: Float[np.ndarray, " 2"]) -> Any:
        drawn = rng.integers(-FASTEST, FASTEST + 1, 2).astype(np.float64)
        return np.where(away == 0, drawn, away * np.abs(drawn))

    place = rng.integers(0, room + 1, 2).astype(np.float64)
    course = bounced_path(place, anew(place, np.zeros(2)), room, frames, anew)
    return Course(np.rint(course.corner), course.bounced)


def nsf(rng: np.random.Generator, frames: int) -> Course:
    """Draw a path after Kiyohara, Johns & Li 2025, between pixels."""
    room = SIDE - DIGIT["nsf"]

    def anew(speed: Float[np.ndarray, " 2"], away: Float[np.ndarray, " 2"]) -> Any:
        angle = rng.uniform(0, 2 * np.pi)
        drawn = np.hypot(*speed) * np.array([np.cos(angle), np.sin(angle)])
        return np.where(away == 0, drawn, away * np.abs(drawn))

    speed = np.array([rng.uniform(1, FASTEST), 0.0])
    return bounced_path(rng.uniform(0, room, 2), anew(speed, np.zeros(2)), room, frames, anew)


def bounced_path(
    place: Float[np.ndarray, " 2"],
    speed: Float[np.ndarray, " 2"],
    room: int,
    frames: int,
    anew: Callable[[Float[np.ndarray, " 2"], Float[np.ndarray, " 2"]], Any],
) -> Course:
    """Move straight on from wall to wall; `anew(speed, away)` gives the velocity off a wall."""
    corner, bounced = np.empty((frames, 2)), []
    for frame in range(frames):
        corner[frame] = place
        left = 1.0
        while left > 0:
            wall = np.where(speed > 0, room, 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                due = np.where(speed == 0, np.inf, (wall - place) / speed)
            if due.min() >= left:
                place = np.clip(place + left * speed, 0, room)
                break
            left -= due.min()
            met = due == due.min()
            place = np.where(met, wall, place + due.min() * speed)
            speed = anew(speed, np.where(met, -np.sign(speed), 0.0))
            bounced.append(frame + 1)
    return Course(corner, sorted({frame for frame in bounced if frame < frames}))


DIGIT: dict[Generator, int] = {"svg": 32, "srvp": 28, "nsf": 28}  # pixels
_COURSES = {"svg": svg, "srvp": srvp, "nsf": nsf}


@dataclass(frozen=True)
class StochasticDigits:
    """`count` digits a clip; of MNIST's, shuffled once, the share from `low` to `high`."""

    generator: Generator
    count: int
    folder: Path
    low: float
    high: float

    def clips(self, rng: np.random.Generator, count: int, spec: CutSpec) -> Iterator[Drawing]:
        """Yield `count` clips, each with its digits' names, corners and bounces."""
        glyphs, labels = _share(self.folder, self.low, self.high, DIGIT[self.generator])
        for _ in range(count):
            which = rng.integers(len(glyphs), size=self.count)
            courses = [_COURSES[self.generator](rng, spec.clip_length) for _ in which]
            video = np.zeros((spec.clip_length, SIDE, SIDE))
            for glyph, course in zip(glyphs[which], courses, strict=True):
                for frame, corner in zip(video, course.corner, strict=True):
                    _add(frame, glyph, corner)
            names = [str(label) for label in labels[which]]
            yield (
                _smaller(np.minimum(video, 255), spec.frame_size)[..., None],
                {
                    "label": "".join(names),
                    "caption": f"the digits {' and '.join(names)}",
                    "corners": [course.corner.round(3).tolist() for course in courses],
                    "bounced": [course.bounced for course in courses],
                },
            )

    def truth(self) -> dict[str, Any]:
        """Describe the generator, and the sizes with which `corners` are to be read."""
        return {
            "generator": self.generator,
            "digits": self.count,
            "frame_side": SIDE,
            "digit_side": DIGIT[self.generator],
        }


def stochastic_digits(
    generator: Generator, count: int, folder: Path, shares: Mapping[str, float], frame_size: int
) -> dict[str, StochasticDigits]:
    """Make an artist for each split; the splits share no image.

    Raises UserError where `folder` holds no MNIST, or `frame_size` does not divide 64.
    """
    if SIDE % frame_size:
        raise UserError(
            f"--frame_size is {frame_size}, but Stochastic Moving MNIST is drawn at {SIDE} and "
            "made smaller by a whole number; give 64, 32 or 16"
        )
    read_mnist(folder)
    artists, low = {}, 0.0
    for split, share in shares.items():
        high = min(1.0, low + share)
        artists[split] = StochasticDigits(generator, count, folder, low, high)
        low = high
    return artists


@lru_cache(maxsize=4)
def _share(folder: Path, low: float, high: float, side: int) -> tuple[Glyphs, Any]:
    """Read one split's images at `side` pixels, and their labels; a shuffle first mixes writers."""
    glyphs, labels = read_mnist(folder)
    order = np.random.default_rng(0).permutation(len(glyphs))
    part = order[
        round(low * len(order)) : max(round(low * len(order)) + 1, round(high * len(order)))
    ]
    chosen = glyphs[part]
    if side != chosen.shape[1]:
        scale = Image.Resampling.BILINEAR
        chosen = np.stack(
            [np.asarray(Image.fromarray(one).resize((side, side), scale)) for one in chosen]
        )
    return chosen, labels[part]


def _add(
    frame: Float[np.ndarray, "height width"],
    glyph: UInt8[np.ndarray, "side side"],
    corner: Float[np.ndarray, " 2"],
) -> None:
    """Add the glyph with its corner (x, y) between pixels, shared out linearly over neighbours."""
    (left, top), (right, down) = corner.astype(int), corner % 1
    side = len(glyph)
    for dy, by_row in ((0, 1 - down), (1, down)):
        for dx, by_column in ((0, 1 - right), (1, right)):
            if by_row * by_column:
                rows, columns = top + dy, left + dx
                frame[rows : rows + side, columns : columns + side] += by_row * by_column * glyph


def _smaller(
    video: Float[np.ndarray, "time height width"], side: int
) -> UInt8[np.ndarray, "time side side"]:
    ratio = SIDE // side
    blocks = video.reshape(len(video), side, ratio, side, ratio)
    small: UInt8[np.ndarray, "time side side"] = np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)
    return small

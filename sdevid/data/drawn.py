"""Drawn sources: blocks of clips of the disc whose motion follows a known SDE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sdevid.data.cut.splits import counts
from sdevid.data.payload import ClipVideo
from sdevid.data.pendulum import Pendulum, Swing
from sdevid.data.radius import GeometricBrownian, Pulse
from sdevid.data.spec import CutClip, CutSpec
from sdevid.data.synthetic import DoubleWell, Motion, OrnsteinUhlenbeck, from_truth

_BLOCK = 64  # clips drawn in one go


SDE = DoubleWell | OrnsteinUhlenbeck | Pendulum | GeometricBrownian
Scene = Motion | Swing | Pulse  # what moves by a known SDE, and how it is drawn
Drawing = tuple[ClipVideo, dict[str, Any]]  # a clip and further fields of its KEY.json


class Artist(Protocol):
    """Draws the clips of one data set."""

    def clips(self, rng: np.random.Generator, count: int, spec: CutSpec) -> Iterator[Drawing]:
        """Draw `count` independent clips."""
        ...

    def truth(self) -> dict[str, Any] | None:
        """Describe what is known of the motion, or None."""
        ...


@dataclass(frozen=True)
class DiscArtist:
    """Draws a scene."""

    scene: Scene

    def clips(self, rng: np.random.Generator, count: int, spec: CutSpec) -> Iterator[Drawing]:
        """Yield `count` clips, each with the scene's state, in units, at each frame."""
        times = np.arange(spec.clip_length) / spec.fps
        for path in self.scene.simulate(rng, count, times):
            yield self.scene.draw(path, spec.frame_size), self.scene.metadata(path)

    def truth(self) -> dict[str, Any]:
        """Describe the motion and the drawing, as `known_scene` reads them."""
        return self.scene.truth()


def disc_artist(dataset: str, vertical: str) -> DiscArtist:
    """Choose the scene by name: double-well, ou, pendulum or gbm-radius.

    Of the first two, `vertical` is none, or ou along y.
    """
    if dataset == "pendulum":
        return DiscArtist(Swing())
    if dataset == "gbm-radius":
        return DiscArtist(Pulse())
    along_x = DoubleWell() if dataset == "double-well" else OrnsteinUhlenbeck()
    return DiscArtist(Motion(along_x, OrnsteinUhlenbeck() if vertical == "ou" else None))


def known_scene(truth: Mapping[str, Any]) -> Scene:
    """Build the scene that a `truth` of dataset.json describes."""
    axes = truth["axes"]
    if "angle" in axes:
        return Swing(Pendulum(**_parameters(axes["angle"])))
    if "radius" in axes:
        return Pulse(GeometricBrownian(**_parameters(axes["radius"])))
    return from_truth(dict(truth))


def _parameters(metadata: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in metadata.items() if key != "sde"}


@dataclass(frozen=True)
class DrawnSource:
    """Clips `first` to `first + count` of a drawn data set, a pure function of (seed, first)."""

    dataset: str
    artist: Artist
    seed: int
    split: str
    first: int
    count: int
    label: str = ""
    caption: str = ""

    @property
    def name(self) -> str:
        """Name, unique in a data set."""
        return f"{self.dataset}-{self.first:06d}"

    @property
    def group(self) -> str:
        """Every block is a group of its own."""
        return self.name

    def identity(self) -> list[Any]:
        """List what must not change for an interrupted cut to be resumed."""
        return [self.name, self.split, self.seed, self.count]

    def clips(self, spec: CutSpec) -> Iterator[CutClip]:
        """Yield the clips of the block."""
        rng = np.random.default_rng([self.seed, self.first])
        for number, (video, extra) in enumerate(self.artist.clips(rng, self.count, spec)):
            yield CutClip(f"{self.dataset}-{self.first + number:06d}", 0.0, video, extra)


def drawn_sources(
    dataset: str,
    artists: Mapping[str, Artist],  # by split
    seed: int,
    num_clips: int,
    shares: Mapping[str, float],
) -> list[DrawnSource]:
    """Divide `num_clips` clips over the splits, in blocks."""
    sources, first = [], 0
    for split, number in counts(num_clips, shares, "clips").items():
        for start in range(first, first + number, _BLOCK):
            count = min(_BLOCK, first + number - start)
            sources.append(DrawnSource(dataset, artists[split], seed, split, start, count))
        first += number
    return sources

"""Tracks what moves in drawn video, by what the data set says of its motion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdevid.data.drawn import SDE, Scene, known_scene
from sdevid.evaluate.sde_recovery.tracker import angles, positions, radii, unwrapped
from sdevid.evaluate.statistics.estimate import Floats


@dataclass(frozen=True)
class SceneTracker:
    """Tracks the motion of a scene in its own units."""

    scene: Scene
    half_width: float  # units from the middle of a frame to its side

    @property
    def axes(self) -> dict[str, SDE]:
        """The true SDE along each axis."""
        return dict(self.scene.axes)

    def place(self, video: NDArray[np.uint8]) -> Floats:
        """Track what a forecast is scored on, (..., 2) or (..., 1): the disc's place or radius."""
        track = radii if "radius" in self.axes else positions
        return track(video, self.half_width)

    def paths(self, video: NDArray[np.uint8]) -> dict[str, Floats]:
        """Track the coordinate along each axis, (videos, frames), of (videos, frames, h, w, c)."""
        if "angle" in self.axes:
            return {"angle": unwrapped(angles(video, self.half_width)[..., 0])}
        place = self.place(video)
        return {name: place[..., i] for i, name in enumerate(self.axes)}


def scene_tracker(truth: Mapping[str, Any]) -> SceneTracker:
    """Build the tracker of the drawn data set with this `truth` in dataset.json."""
    return SceneTracker(known_scene(truth), float(truth["units"]["half_width"]))

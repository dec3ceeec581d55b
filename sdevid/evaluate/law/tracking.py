"""Trackers of film: our own of blobs, called centroids, and trackpy's (the extra `trackpy`)."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from sdevid.errors import UserError
from sdevid.evaluate import blobs
from sdevid.evaluate.blobs import Sign, Tracks
from sdevid.evaluate.statistics.estimate import Floats

TrackerName = Literal["centroids", "trackpy"]


class FilmTracker(Protocol):
    """Follows what moves through a grey film in [0, 1]."""

    def follow(self, film: Floats) -> tuple[Tracks, list[int]]:
        """Track a film; return tracks and the number of things seen in each frame.

        A track is an unbroken run of places (x, y) in pixels.
        """
        ...


@dataclass(frozen=True)
class TrackpyTracker:
    """Crocker & Grier's algorithm by trackpy: located features, linked frame to frame."""

    diameter: int = 11  # pixels, odd
    threshold: float = 0.09  # least contrast of a feature, in [0, 1]
    reach: float = 5.0  # pixels a frame
    sign: Sign = "dark"

    def follow(self, film: Floats) -> tuple[Tracks, list[int]]:
        """Track a film; a track that loses its feature ends there."""
        import trackpy

        trackpy.quiet()
        grey = np.rint(255 * np.clip(film, 0, 1)).astype(np.uint8)
        frames = [255 - frame if self.sign == "dark" else frame for frame in grey]
        with np.errstate(divide="ignore"):  # of features whose mass is 0, in trackpy's own error
            located: Any = trackpy.batch(frames, self.diameter, processes=1)
        # trackpy's signal is the height of the peak over the ground, in grey levels
        located = located[located["signal"] >= 255 * self.threshold]
        counts = [int((located["frame"] == k).sum()) for k in range(len(film))]
        if not len(located):
            return [], counts
        linked: Any = trackpy.link(located, self.reach, memory=0)
        tracks = linked.sort_values("frame").groupby("particle")
        return [track[["x", "y"]].to_numpy(np.float64) for _, track in tracks], counts


def build_tracker(name: TrackerName, threshold: float, reach: float, sign: Sign) -> FilmTracker:
    """Build the named tracker. UserError where its package is not installed."""
    if name == "centroids":
        return blobs.Tracker(threshold, reach, sign)
    if importlib.util.find_spec("trackpy") is None:
        raise UserError(
            "--tracker trackpy needs trackpy, which is not installed; pip install "
            "'sdevid[trackpy]', or give --tracker centroids"
        )
    return TrackpyTracker(threshold=threshold, reach=reach, sign=sign)

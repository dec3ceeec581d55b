"""Blobs followed through a film, and the diffusion that their tracks show.

The same tracker reads real and generated film: the ground is taken off, the frame is blurred,
local maxima are places to a fraction of a pixel, and the Hungarian method links them from frame to
frame. Lengths are in pixels, x to the right and y down; times are in seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.optimize import linear_sum_assignment

Floats = NDArray[np.float64]
Sign = Literal["dark", "bright"]
Tracks = list[Float[np.ndarray, "frames 2"]]

BLUR, SEPARATION, WINDOW, EDGE = 1.5, 7, 2, 3  # pixels: sd, between blobs, of a summit, left out
RESAMPLES = 400


@dataclass(frozen=True)
class Tracker:
    """What counts as a blob, and how far it may go from one frame to the next."""

    threshold: float = 0.09  # least contrast of a blurred blob, in [0, 1]
    reach: float = 5.0  # pixels a frame
    sign: Sign = "dark"

    def find(self, frame: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "blobs 2"]:
        """Locate the blobs of a grey frame in [0, 1]: (x, y), shape (blobs, 2). NaN shows none."""
        if np.isnan(frame).all():
            return np.empty((0, 2))
        above = frame - np.nanmedian(frame)
        contrast = gaussian_filter(np.nan_to_num(-above if self.sign == "dark" else above), BLUR)
        peaks = (contrast == maximum_filter(contrast, SEPARATION)) & (contrast > self.threshold)
        peaks[:EDGE], peaks[-EDGE:], peaks[:, :EDGE], peaks[:, -EDGE:] = False, False, False, False
        rows, columns = np.nonzero(peaks)
        return np.array(
            [_summit(contrast, int(y), int(x)) for y, x in zip(rows, columns, strict=True)]
        ).reshape(-1, 2)

    def follow(self, film: Float[np.ndarray, "time height width"]) -> tuple[Tracks, list[int]]:
        """Track blobs through a film; return the tracks and the number of blobs in each frame.

        A track is an unbroken run of places (x, y).
        """
        live: list[list[Floats]] = []
        ended: list[list[Floats]] = []
        counts = []
        for frame in film:
            positions = self.find(frame)
            counts.append(len(positions))
            kept, taken = [], set()
            for track, place in self._links(live, positions):
                live[track].append(positions[place])
                kept.append(track)
                taken.add(place)
            ended += [track for number, track in enumerate(live) if number not in kept]
            live = [live[number] for number in kept]
            live += [[place] for number, place in enumerate(positions) if number not in taken]
        return [np.array(track) for track in ended + live], counts

    def _links(self, live: list[list[Floats]], positions: Floats) -> list[tuple[int, int]]:
        if not live or not len(positions):
            return []
        apart = np.linalg.norm(
            np.array([track[-1] for track in live])[:, None] - positions, axis=-1
        )
        pairs = zip(*linear_sum_assignment(np.minimum(apart, 2 * self.reach)), strict=True)
        return [(int(i), int(j)) for i, j in pairs if apart[i, j] < self.reach]


def _summit(contrast: Floats, y: int, x: int) -> tuple[float, float]:
    """Locate (x, y) of the summit of a paraboloid through the contrast around a greatest pixel.

    By least squares over `WINDOW` pixels to each side; that pixel itself where it has no summit.
    A centroid over whole pixels would be drawn to their middle, by 0.2 pixel (sd).
    """
    patch = contrast[y - WINDOW : y + WINDOW + 1, x - WINDOW : x + WINDOW + 1]
    _, *slope, xx, yy, xy = _PARABOLOID @ patch.ravel()
    curvature = np.array([[2 * xx, xy], [xy, 2 * yy]])
    if np.linalg.eigvalsh(curvature)[1] >= 0:
        return float(x), float(y)
    right, down = np.clip(-np.linalg.solve(curvature, slope), -1, 1)
    return x + float(right), y + float(down)


def _paraboloid() -> Floats:
    """Solve for a to f of a + b x + c y + d x^2 + e y^2 + f x y on the pixels of the window."""
    k = np.arange(-WINDOW, WINDOW + 1.0)
    y, x = (part.ravel() for part in np.meshgrid(k, k, indexing="ij"))
    return np.linalg.pinv(np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1))


_PARABOLOID = _paraboloid()


@dataclass(frozen=True)
class TrackedLaw:
    """Motion of the tracks of some films; D is half the rate of the variance along an axis."""

    diffusion: float  # D by the slope of the mean square displacement, pixel^2 / s
    low: float  # 95 % interval of D: films drawn again
    high: float
    diffusion_one_step: float  # D by one frame's displacement: tracking errors count in full
    drift: tuple[float, float]  # mean velocity (x, y), pixel / s
    displacement: tuple[float, ...]  # mean square, pixel^2, at lags of 1, 2, .. frames
    counts: tuple[float, ...]  # mean number of blobs at each frame
    tracks: int

    def as_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return asdict(self)


def tracked_law(
    films: Float[np.ndarray, "films time height width"],
    fps: float,
    tracker: Tracker | None = None,
    lags: int = 6,
    shortest: int = 5,
    seed: int = 0,
) -> TrackedLaw | None:
    """Estimate D, drift and number of blobs of grey films in [0, 1], `fps` frames a second.

    The mean motion of all tracks is taken out of the displacements. A track counts from `shortest`
    frames. None where no film has such a track.
    """
    tracker = tracker or Tracker()
    followed = [tracker.follow(film) for film in films]
    by_film = [[track for track in tracks if len(track) >= shortest] for tracks, _ in followed]
    everywhere = [track for tracks in by_film for track in tracks]
    if not everywhere:
        return None
    steps = np.concatenate([np.diff(track, axis=0) for track in everywhere])
    drift = steps.mean(0)
    sums = np.array([_displacements(tracks, drift, lags) for tracks in by_film])
    totals = sums.sum(0)
    rng = np.random.default_rng(seed)
    again = [sums[rng.integers(len(sums), size=len(sums))].sum(0) for _ in range(RESAMPLES)]
    low, high = np.quantile([_slope(total, fps) for total in again], (0.025, 0.975))
    mean = totals[0] / np.maximum(totals[1], 1)
    return TrackedLaw(
        diffusion=_slope(totals, fps),
        low=float(low),
        high=float(high),
        diffusion_one_step=float(mean[0] * fps / 4),
        drift=(float(drift[0] * fps), float(drift[1] * fps)),
        displacement=tuple(float(value) for value in mean),
        counts=tuple(float(n) for n in np.mean([counts for _, counts in followed], axis=0)),
        tracks=len(everywhere),
    )


def _displacements(tracks: Tracks, drift: Floats, lags: int) -> Floats:
    """Sum squared displacements and their number by lag, (2, lags), over one film's tracks."""
    sums = np.zeros((2, lags))
    for lag in range(1, lags + 1):
        for track in tracks:
            displacements = track[lag:] - track[:-lag] - lag * drift
            sums[:, lag - 1] += np.square(displacements).sum(), len(displacements)
    return sums


def _slope(sums: Floats, fps: float) -> float:
    """Fit D by least squares over the lags that tracks reach; NaN for fewer than two."""
    reached = sums[1] > 0
    if reached.sum() < 2:
        return float("nan")
    lag = (1 + np.arange(sums.shape[1]))[reached] / fps
    return float(np.polyfit(lag, sums[0, reached] / sums[1, reached], 1)[0] / 4)

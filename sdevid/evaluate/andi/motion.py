"""Segments of anomalous diffusion read off one track, by its mean square displacement."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from sdevid.evaluate.andi.scores import DIRECTED, FREE, IMMOBILE, Segments
from sdevid.evaluate.statistics.estimate import Floats

Track = Float[np.ndarray, "frames 2"]  # (x, y), pixels

LAGS = 4  # frames, of the mean square displacement
SHORTEST = 8  # steps of a segment
GAIN = 12.0  # nats of likelihood, that a change point has to bring
STILL = (0.3, 0.1)  # alpha and K below which a particle counts as immobile
FASTEST = 1.9  # alpha from which motion counts as directed
HIGHEST = 1.99  # alpha, below the challenge's bound


def segments(track: Track) -> Segments:
    """Find segments of constant K in a track of three frames or more, and fit each of them."""
    steps = np.diff(track, axis=0)
    changes = [*_changes(steps, 1), len(track)]
    starts = [0, *changes[:-1]]
    fitted = [
        fit(track[max(first - 1, 0) : last]) for first, last in zip(starts, changes, strict=True)
    ]
    return Segments(
        changes=changes,
        alpha=[alpha for alpha, _ in fitted],
        K=[coefficient for _, coefficient in fitted],
        state=[_state(*one) for one in fitted],
    )


def fit(track: Track) -> tuple[float, float]:
    """Fit 4 K t^alpha to the mean square displacement, in logarithms; return alpha and K.

    Lags are weighted alike. The tracker's error is not taken off, so that alpha of a slow particle
    is too small.
    """
    lags = np.arange(1, max(2, min(LAGS, (len(track) - 1) // 2)) + 1)
    square = np.array([((track[lag:] - track[:-lag]) ** 2).sum(1).mean() for lag in lags])
    alpha, level = np.polyfit(np.log(lags), np.log(np.maximum(square, 1e-12)), 1)
    return float(np.clip(alpha, 0, HIGHEST)), float(np.exp(level) / 4)


def _state(alpha: float, coefficient: float) -> int:
    if alpha < STILL[0] and coefficient < STILL[1]:
        return IMMOBILE
    return DIRECTED if alpha >= FASTEST else FREE


def _changes(steps: Floats, first: int) -> list[int]:
    """Find frames at which the steps' variance changes, by splitting where likelihood gains most.

    Steps count as independent; the first of them leads to frame `first`.
    """
    count = len(steps)
    if count < 2 * SHORTEST:
        return []
    square = np.maximum((steps**2).sum(1), 1e-12)
    before = np.cumsum(square)[SHORTEST - 1 : count - SHORTEST]
    left = np.arange(SHORTEST, count - SHORTEST + 1)
    whole = count * np.log(square.mean())
    parts = left * np.log(before / left)
    parts += (count - left) * np.log((square.sum() - before) / (count - left))
    best = int(np.argmin(parts))
    if whole - parts[best] < GAIN:
        return []
    split = int(left[best])
    return [
        *_changes(steps[:split], first),
        first + split,
        *_changes(steps[split:], first + split),
    ]

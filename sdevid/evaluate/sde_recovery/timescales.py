"""Autocorrelation time and first-passage time of paths that are seen frame by frame."""

from __future__ import annotations

import numpy as np

from sdevid.evaluate.statistics.bootstrap import bootstrap
from sdevid.evaluate.statistics.estimate import Estimate, Floats

FEWEST = 32  # pairs of frames, or passages begun, below which nothing is said


def autocorrelation_time(paths: Floats, interval: float, middle: float) -> Estimate:
    """Estimate the seconds until the autocorrelation about `middle` first falls to 1/e.

    `paths` are (number, frames). The correlation's logarithm is taken as straight between two lags.
    Of an OU process the time is 1/theta; of an oscillation it says when it first leaves its phase.
    Where the paths are too short to fall that far, the line through the logarithm over the later
    half of the lags is carried on; NaN where it rises. `middle` is the true mean: that of a short
    path would bias the lags (Sokal 1997).
    """
    x = paths - middle
    valid = np.isfinite(x)
    x = np.where(valid, x, 0.0)
    frames = paths.shape[1]
    products = np.stack([(x[:, : frames - k] * x[:, k:]).sum(1) for k in range(frames)], 1)
    counts = np.stack([(valid[:, : frames - k] & valid[:, k:]).sum(1) for k in range(frames)], 1)

    def statistic(weight: Floats) -> Floats:
        number = weight @ counts
        covariance = weight @ products / np.where(number >= FEWEST, number, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            correlation = covariance / covariance[:, :1]
            inside = _fall(correlation)
            return interval * np.where(np.isnan(inside), _carried_on(correlation, number), inside)

    return bootstrap(len(paths), statistic)


def first_passage_time(
    paths: Floats, interval: float, middle: float, level: float, horizon: float
) -> Estimate:
    """Estimate the mean seconds, up to `horizon`, to come back from `level` to `middle`.

    A passage begins at the first frame at or beyond `level`, on either side, that follows a frame
    within it, and ends at the first frame on the other side of `middle`. Paths that end before are
    censored: the mean is the area below Kaplan & Meier's curve (1958), restricted to `horizon`.
    """
    lags = round(horizon / interval)
    ended, risked = _passages(paths - middle, level, lags)

    def statistic(weight: Floats) -> Floats:
        at_risk, events = weight @ risked, weight @ ended
        hazard = events / np.where(at_risk > 0, at_risk, np.nan)
        alive = np.cumprod(1 - np.nan_to_num(hazard), axis=1)
        whole = np.concatenate([np.ones((len(weight), 1)), alive], axis=1)
        area: Floats = interval * (whole[:, 1:] + whole[:, :-1]).sum(axis=1) / 2
        return np.where((at_risk[:, 0] >= FEWEST) & (at_risk[:, -1] > 0), area, np.nan)

    return bootstrap(len(paths), statistic)


def _fall(correlation: Floats) -> Floats:
    """Find the lag, in frames, at which each row first passes 1/e; NaN where none does."""
    goal = np.exp(-1)
    below = correlation <= goal
    at, rows = np.argmax(below, axis=1), np.arange(len(correlation))
    after, before = correlation[rows, at], correlation[rows, at - 1]
    bent = np.log(before / goal) / np.log(before / after)
    straight = (before - goal) / (before - after)
    share = np.where(after > 0, bent, straight)
    return np.where(below[rows, at], at - 1 + share, np.nan)


def _carried_on(correlation: Floats, number: Floats) -> Floats:
    """Extrapolate to the lag where a line through log correlation, over later lags, meets -1."""
    lag = np.arange(correlation.shape[1], dtype=np.float64)
    level = np.log(correlation)
    weight = np.where(np.isfinite(level) & (lag >= len(lag) / 2), number, 0.0)
    total = weight.sum(axis=1, keepdims=True)
    x = lag - (weight * lag).sum(axis=1, keepdims=True) / total
    y = np.where(weight > 0, level, 0.0)
    slope = (weight * x * y).sum(axis=1) / (weight * x**2).sum(axis=1)
    start = ((weight * y).sum(axis=1) - slope * (weight * lag).sum(axis=1)) / total[:, 0]
    below = (correlation <= np.exp(-1)).any(axis=1)
    return np.where((slope < 0) & ~below, (-1 - start) / slope, np.nan)


def _passages(x: Floats, level: float, lags: int) -> tuple[Floats, Floats]:
    """Count each path's passages that end at lags 1 to `lags`, and those watched up to them."""
    number, frames = x.shape
    ended, risked = np.zeros((number, lags)), np.zeros((number, lags))
    rows = np.arange(number)
    side, age = np.zeros(number), np.zeros(number, int)
    for k in range(1, frames):
        now, before = x[:, k], x[:, k - 1]
        lost = ~np.isfinite(now)
        running = (side != 0) & ~lost
        age[running] += 1
        there = running & (age <= lags)
        risked[rows[there], age[there] - 1] += 1
        arrived = running & (now * side <= 0)
        over = arrived & (age <= lags)
        ended[rows[over], age[over] - 1] += 1
        side = np.where(arrived | lost, 0.0, side)
        begins = (side == 0) & ~arrived & (np.abs(before) < level) & (np.abs(now) >= level)
        side, age = np.where(begins, np.sign(now), side), np.where(begins, 0, age)
    return ended, risked

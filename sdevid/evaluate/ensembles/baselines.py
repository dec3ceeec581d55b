"""Forecasts that a model must beat: they know the training split and the prefix, nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sdevid.data.source_units import SourceUnits
from sdevid.evaluate.context import EvalContext, read_clips
from sdevid.evaluate.progress import evenly
from sdevid.evaluate.statistics.observed import Values, filled, in_unit_range, missing

PAST_CLIPS = 512  # of the training split, at most
FLOW_PAIRS = 3  # of frames that the flow is a mean of, at most
FLOW_RADIUS = 7  # pixels, of the window of Lucas-Kanade

Field = NDArray[np.float32]
Kind = Literal["ensemble", "quantiles", "point"]


@dataclass(frozen=True)
class Forecast:
    """Members (members, frames ahead, height, width, channels) in the source's units.

    `ensemble` members are exchangeable draws; `quantiles` are chosen levels of a distribution; a
    `point` is one member.
    """

    samples: Field
    kind: Kind


@dataclass(frozen=True)
class Case:
    """One forecast to make."""

    prefix: Values  # (context, height, width, channels), as stored; NaN: not observed
    ahead: int  # frames to forecast
    members: int
    units: SourceUnits
    past: Values  # clips of the training split
    seed: int


@dataclass(frozen=True)
class Baseline:
    """A forecast by rule. `needs` says why it cannot be made, or None."""

    name: str
    forecast: Callable[[Case], Forecast]
    needs: Callable[[EvalContext], str | None] = lambda _: None


@lru_cache(maxsize=1)
def past_clips(context: EvalContext) -> Values:
    """Read up to 512 clips of the training split, at even distances."""
    clips = evenly(PAST_CLIPS, len(context.training))
    return read_clips(context.training, context.config, clips, "past clips")


def persistence(case: Case) -> Forecast:
    """Repeat the last frame; a pixel that is missing there, its last observed value."""
    last = case.units.values(filled(in_unit_range(case.prefix))[-1:])
    return Forecast(np.repeat(last, case.ahead, axis=0)[None], "point")


def training_mean(case: Case) -> Forecast:
    """Average the observed values of the training frames, pixel by pixel."""
    frames = case.past.reshape(-1, *case.past.shape[2:])
    total, count = np.zeros(frames.shape[1:]), np.zeros(frames.shape[1:])
    for part in np.array_split(frames, max(1, len(frames) // 256)):
        values = case.units.values(part)
        known = np.isfinite(values)
        total += np.where(known, values, 0).sum(axis=0, dtype=np.float64)
        count += known.sum(axis=0)
    field = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
    return Forecast(np.broadcast_to(field, (1, case.ahead, *field.shape)), "point")


def climatology(case: Case) -> Forecast:
    """Take quantiles of the training frames, pixel by pixel, at the middles of equal shares."""
    frames = case.past.reshape(-1, *case.past.shape[2:])
    levels = (np.arange(case.members) + 0.5) / case.members
    # the scale rises, so quantiles of stored values are those of the source's
    if missing(frames) is None:
        quantiles = np.quantile(frames, levels, axis=0, method="nearest")
    else:
        with warnings.catch_warnings():  # pixels that were never observed
            warnings.simplefilter("ignore", RuntimeWarning)
            quantiles = np.nanquantile(frames, levels, axis=0, method="nearest")
    fields = case.units.values(quantiles.astype(case.past.dtype))[:, None]
    shape = (case.members, case.ahead, *fields.shape[2:])
    return Forecast(np.broadcast_to(fields, shape), "quantiles")


def random_past(case: Case) -> Forecast:
    """Draw clips of the training split at random; use the frames at the same times."""
    rng = np.random.default_rng(case.seed)
    drawn = rng.integers(len(case.past), size=case.members)
    return Forecast(case.units.values(case.past[drawn][:, -case.ahead :]), "ensemble")


def optical_flow(case: Case) -> Forecast:
    """Advect the last frame along the optical flow of the prefix."""
    velocity = flow_of(case.prefix)
    last = case.units.values(filled(in_unit_range(case.prefix))[-1])
    moved, fields = np.zeros_like(velocity), []
    for _ in range(case.ahead):
        moved = moved + np.moveaxis(advected(np.moveaxis(velocity, 0, -1), moved), -1, 0)
        fields.append(advected(last, moved))
    return Forecast(np.stack(fields)[None].astype(np.float32), "point")


def advected(field: Any, moved: Any) -> Any:
    """Carry `field` (height, width, channels) by `moved` (2, height, width), rows and columns.

    Bilinear between pixels; from outside the picture its edge comes in.
    """
    from scipy.ndimage import map_coordinates

    grid = np.stack(np.meshgrid(*map(np.arange, field.shape[:2]), indexing="ij"))
    layers = [
        map_coordinates(field[..., c], grid - moved, order=1, mode="nearest")
        for c in range(field.shape[-1])
    ]
    return np.stack(layers, axis=-1)


def flow_of(prefix: Values) -> Any:
    """Estimate motion (2, height, width) along rows and columns, in pixels a frame.

    Averages iterative Lucas-Kanade (Le Besnerais & Champagnat 2005) over the last pairs of frames,
    on values as stored; a missing one is taken from the frame before.
    """
    from skimage import registration

    flow: Any = registration.optical_flow_ilk
    grey = filled(in_unit_range(prefix)).mean(axis=-1)
    pairs = range(max(1, len(grey) - FLOW_PAIRS), len(grey))
    # the flow of scikit-image says where a pixel of the first picture is found in the second
    return np.mean([flow(grey[k - 1], grey[k], radius=FLOW_RADIUS) for k in pairs], axis=0)


def two_frames(context: EvalContext) -> str | None:
    """Say why optical flow cannot run, or None: it needs two frames of context."""
    few = context.options.context < 2
    return "the flow needs two frames; give --context 2 or more" if few else None


BASELINES: tuple[Baseline, ...] = (
    Baseline("persistence", persistence),
    Baseline("training_mean", training_mean),
    Baseline("climatology", climatology),
    Baseline("random_past_clip", random_past),
    Baseline("optical_flow", optical_flow, two_frames),
)

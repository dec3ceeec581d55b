"""The law that a model of particles has learnt, read off, beside its posterior's own motion.

Only particles count that stand where a tracker sees a blob in the clip's first frame. Lengths are
in pixels, times in seconds. D = g^2 / 2 is a diffusion coefficient along each axis.

The diffusion learnt is fitted to single steps of the posterior's path. Where that path lags behind
the film, single steps are too short, and the slope of its mean square displacement over longer lags
is the better figure: `factor` says by how much, and `calibrate` sets g so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from sdevid.config import Config
from sdevid.data import stream
from sdevid.data.shards import ShardIndex
from sdevid.errors import UserError
from sdevid.evaluate.blobs import Floats, Tracker
from sdevid.evaluate.progress import batches
from sdevid.models.particles.model import ParticleSDE
from sdevid.objectives.clip_objective import Clips
from sdevid.objectives.particles import ParticleObjective
from sdevid.types import Serial, Ticks, Video, as_frames

NEAR = 3.0  # pixels between a particle and the blob it stands for
LAGS, FIRST_LAG = 6, 2  # frames; the slope is over FIRST_LAG to LAGS
RESAMPLES = 400


@dataclass(frozen=True)
class Bounds:
    """A figure with its 95 % interval, by bootstrap over the clips."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ModelLaw:
    """What the model says of the motion of what is seen, straight from its weights and posterior.

    A velocity's diffusion, not a place's, where `order` is 2. The intervals of `diffusion` and
    `drift` are over the clips that the model is read on; how sure the films make a figure is seen
    in those of the posterior's own motion.
    """

    order: int
    particles: int  # followed, over all clips
    clips: int
    windows: int  # of training length, that those clips were cut into
    diffusion: Bounds  # D = g^2 / 2, mean over the particles, pixel^2 / s (order 1); see below
    diffusion_spread: tuple[float, float, float]  # 5, 50 and 95 % quantiles over the particles
    drift: tuple[Bounds, Bounds]  # mean of h along x and y over that path, pixel / s^order
    pull: tuple[Bounds, Bounds]  # slope of h along x on x and along y on y, there, 1 / s^order
    length: float | None  # l of the carried noise, pixels; None: independent
    posterior_drift: tuple[Bounds, Bounds]  # mean velocity of its path, pixel / s
    posterior_pull: tuple[Bounds, Bounds]  # slope of its steps on the place before, 1 / s
    posterior_step: Bounds  # D of the posterior's path by one step, pixel^2 / s
    posterior_slope: Bounds  # and by the slope of its displacement over lags 2 to 6
    displacement: tuple[float, ...]  # mean square of the posterior's path by lag, pixel^2
    step_correlation: float  # of its successive steps; 0 is white
    factor: float  # posterior_slope over diffusion: what calibration multiplies g^2 by
    walls: list[list[float]] | None = None  # low and high ones along x and along y, pixels

    def as_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return asdict(self)


class Followed(NamedTuple):
    """The particles of one window of a clip that stand for blobs."""

    positions: Floats  # (frames, particles, 2), pixels
    diffusion: Floats  # (particles,), g^2 / 2, a unit of time
    drift: Floats  # h before each step, (frames - 1, particles, 2), a unit of time

    @property
    def steps(self) -> Floats:
        """Displacements from frame to frame, (frames - 1, particles, 2)."""
        return np.diff(self.positions, axis=0)


def model_law(
    objective: ParticleObjective, index: ShardIndex, clips: range, tracker: Tracker, seed: int = 0
) -> ModelLaw:
    """Read the law off `objective`'s model on the clips with these numbers in `index`.

    Each clip is read whole: in windows as long as those of training, one after the other. Raises
    UserError where no particle stands for a blob that the tracker sees.
    """
    config, model = objective.config, objective.model
    followed = [
        _follow(objective, windows(index, config, number), tracker)
        for part in batches(clips, 1, "the posterior's paths")
        for number in part
    ]
    particles = sum(window.positions.shape[1] for windows in followed for window in windows)
    if not particles:
        raise UserError(
            f"the tracker sees no {tracker.sign} blob of contrast {tracker.threshold:g} at a "
            f"particle in {len(clips)} clips; give another --threshold or --sign"
        )
    length = float(model.law.log_length.exp()) if config.sde.noise == "carried" else None
    law, walls = law_of_clips(followed, config, length, seed), model.law.walls
    return law if walls is None else replace(law, walls=walls.box.T.tolist())


def calibrate(model: ParticleSDE, law: ModelLaw) -> float:
    """Multiply the model's g^2 by `law.factor`; return the factor in all since training.

    Raises UserError where the posterior's path does not diffuse, or noise acts on velocities.
    """
    if law.order != 1:
        raise UserError("calibration is of places' diffusion; sde.order is 2, so leave it out")
    if not math.isfinite(law.factor) or law.factor <= 0:
        raise UserError(
            f"the slope of the posterior's displacement is {law.posterior_slope.value:.3g} "
            "pixel^2/s, so nothing is seen to diffuse; the model stays as it is"
        )
    with torch.no_grad():
        model.law.calibration += 0.5 * math.log(law.factor)
    return float((2 * model.law.calibration).exp())


class Windows(NamedTuple):
    """One clip in windows of `sequence_length` frames that do not overlap."""

    video: Video
    ticks: Ticks
    serial: Serial


def windows(index: ShardIndex, config: Config, number: int) -> Windows:
    """Read a clip in as many windows of `sequence_length` frames as it holds."""
    length = config.sequence_length
    count = index.clips[number].num_frames // length
    whole = config.model_copy(update={"sequence_length": count * length})
    batch = stream.fixed(index, whole, range(number, number + 1))
    ticks = batch.ticks.view(count, length)
    return Windows(
        torch.unflatten(batch.video[0], 0, (count, length)),
        ticks - ticks[:, :1],
        (number << 20) + torch.arange(count),
    )


@torch.no_grad()
def _follow(objective: ParticleObjective, windows: Windows, tracker: Tracker) -> list[Followed]:
    model, device = objective.model, next(objective.parameters()).device
    video, ticks, serial = (part.to(device) for part in windows)
    draw = objective.posterior(Clips(video, ticks, serial, context=1))
    content, states = draw.birth.content, draw.path.states
    pulls = [model.law.pull(z, draw.conditions) for z in states[:, :-1].unbind(1)]
    pull = torch.stack(pulls, dim=1).cpu().double().numpy()
    half = (0.5 * draw.conditions.diffusion[..., 0].square()).cpu().double().numpy()
    positions = model.layout.split(states)[0].cpu().double().numpy()
    absent = (content.logit[..., 0] < 0).cpu().numpy()
    grey = as_frames(windows.video[:, :1]).mean(2)[:, 0].numpy()
    followed = []
    for row, frame in enumerate(grey):
        chosen = _standing(positions[row, 0], absent[row], tracker.find(frame))
        followed.append(
            Followed(positions[row][:, chosen], half[row, chosen], pull[row][:, chosen])
        )
    return followed


def _standing(positions: Floats, absent: Any, blobs: Floats) -> list[int]:
    """Match each blob to the nearest present particle, if it is near; each particle once."""
    chosen: set[int] = set()
    for blob in blobs:
        apart = np.linalg.norm(positions - blob, axis=1) + np.where(absent, np.inf, 0.0)
        if apart.min() < NEAR:
            chosen.add(int(apart.argmin()))
    return sorted(chosen)


class _Bootstrap:
    """Figures of sums over clips, each with its interval from clips drawn again."""

    def __init__(self, counts: Floats, seed: int) -> None:
        draws = np.random.default_rng(seed).integers(len(counts), size=(RESAMPLES, len(counts)))
        self.draws = [rows for rows in draws if counts[rows].sum() > 0]

    def interval(self, figure: Callable[[Any], float]) -> Bounds:
        """Compute `figure` of all clips, and its interval; `figure` takes an index of clips."""
        low, high = np.nanquantile([figure(rows) for rows in self.draws], (0.025, 0.975))
        return Bounds(float(figure(slice(None))), float(low), float(high))

    def ratio(self, sums: Floats, counts: Floats, scale: float) -> Bounds:
        """Compute `scale` times the sum of `sums` over that of `counts`, and its interval."""
        return self.interval(lambda rows: scale * sums[rows].sum() / counts[rows].sum())

    def means(self, sums: Floats, counts: Floats, scale: float) -> tuple[Bounds, Bounds]:
        """Compute `ratio` along x and along y, the columns of `sums`."""
        along_x, along_y = (self.ratio(sums[:, axis], counts, scale) for axis in (0, 1))
        return along_x, along_y

    def slopes(self, moments: Floats, scale: float) -> tuple[Bounds, Bounds]:
        """Compute `scale` times the slope along x and along y of `slope_moments` of clips."""

        def along(axis: int) -> Bounds:
            return self.interval(lambda rows: scale * fitted_slope(moments[rows, :, axis].sum(0)))

        return along(0), along(1)


def law_of_clips(
    clips: list[list[Followed]], config: Config, length: float | None, seed: int
) -> ModelLaw:
    """Estimate the law of clips, each followed in one window or more, by bootstrap over clips."""
    fps, order = config.fps, config.sde.order
    drifts, diffusions = config.time_unit**-order, config.time_unit ** (1 - 2 * order)
    followed = [window for windows in clips for window in windows]
    travelled = _each_clip(clips, lambda window: window.steps.sum((0, 1)))
    taken = _each_clip(clips, lambda window: np.prod(window.positions[1:].shape[:2], dtype=float))
    mean = travelled.sum(0) / taken.sum()
    counts = _each_clip(clips, lambda window: float(window.positions.shape[1]))
    half = _each_clip(clips, lambda window: window.diffusion.sum())
    drift = _each_clip(clips, lambda window: window.drift.sum((0, 1)))
    pull = _each_clip(clips, lambda window: slope_moments(window.positions[:-1], window.drift))
    steps = _each_clip(clips, lambda window: slope_moments(window.positions[:-1], window.steps))
    moments = _each_clip(clips, lambda window: displacement_moments(window.positions, mean))
    again, total = _Bootstrap(counts, seed), moments.sum(0)
    diffusion = again.ratio(half, counts, diffusions)
    slope = again.interval(lambda rows: diffusion_by_slope(moments[rows].sum(0), fps))
    everyone = np.concatenate([window.diffusion for window in followed]) * diffusions
    low, middle, high = np.quantile(everyone, (0.05, 0.5, 0.95))
    return ModelLaw(
        order=order,
        particles=int(counts.sum()),
        clips=len(clips),
        windows=len(followed),
        diffusion=diffusion,
        diffusion_spread=(float(low), float(middle), float(high)),
        drift=again.means(drift, taken, drifts),
        pull=again.slopes(pull, drifts),
        length=length,
        posterior_drift=again.means(travelled, taken, fps),
        posterior_pull=again.slopes(steps, fps),
        posterior_step=again.ratio(moments[:, 0, 0], moments[:, 1, 0], fps / 4),
        posterior_slope=slope,
        displacement=tuple(float(x) for x in total[0, :LAGS] / np.maximum(total[1, :LAGS], 1)),
        step_correlation=float(total[0, LAGS] / total[1, LAGS]),
        factor=slope.value / diffusion.value,
    )


def _each_clip(clips: list[list[Followed]], figure: Callable[[Followed], Any]) -> Any:
    """Sum `figure` over each clip's windows, (clips, ...)."""
    return np.array([np.sum([figure(window) for window in windows], axis=0) for windows in clips])


def slope_moments(place: Floats, value: Floats) -> Floats:
    """Sum 1, x, y, x^2 and x y over (frames, particles) of places and values, (5, axes)."""
    parts = np.ones_like(place), place, value, np.square(place), place * value
    sums: Floats = np.stack(parts).sum((1, 2))
    return sums


def fitted_slope(sums: Floats) -> float:
    """Compute the least-squares slope of y on x from their moments; NaN where x is one place."""
    n, x, y, xx, xy = sums
    spread = n * xx - x * x
    return float((n * xy - x * y) / spread) if spread > 0 else float("nan")


def displacement_moments(positions: Floats, mean: Floats) -> Floats:
    """Sum squared displacements by lag, and the products of successive steps.

    Returns (sum, count) x lags, then (products, squares). The `mean` step of all particles of all
    clips is taken out. That of one clip's few particles would take part of their diffusion with it.
    """
    sums = np.zeros((2, LAGS + 1))
    if not positions.shape[1]:
        return sums
    steps = np.diff(positions, axis=0)
    for lag in range(1, min(LAGS, len(steps)) + 1):
        displacements = positions[lag:] - positions[:-lag] - lag * mean
        sums[:, lag - 1] = (
            np.square(displacements).sum(),
            displacements.shape[0] * displacements.shape[1],
        )
    steps = steps - mean
    successive = (steps[1:] * steps[:-1]).sum() / max(1, len(steps) - 1)
    sums[:, LAGS] = successive, np.square(steps).sum() / len(steps)
    return sums


def diffusion_by_slope(sums: Floats, fps: float) -> float:
    """Fit D by least squares to mean square displacements over lags FIRST_LAG to LAGS."""
    lags = np.arange(FIRST_LAG, LAGS + 1)
    counts = sums[1, lags - 1]
    if (counts > 0).sum() < 2:
        return float("nan")
    kept = lags[counts > 0]
    mean = sums[0, kept - 1] / sums[1, kept - 1]
    return float(np.polyfit(kept / fps, mean, 1)[0] / 4)

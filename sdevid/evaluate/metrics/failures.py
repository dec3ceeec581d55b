"""Where a model fails: its posterior, one prior step, many, its own start, or its content code.

Every part is scored on the frame it should show, beside a frame that stands still. A right
posterior with a poor first step names the prior; a good step from the posterior's state and a poor
one from the prior's own start names the start; a slope of shifts near 0, a drift that stands still.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdevid.data import stream
from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.generation import EncodedClips, encode, prior_start, prior_steps
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.statistics.bootstrap import bootstrap, ratio_of_means
from sdevid.evaluate.statistics.estimate import Estimate, Floats, finite, mean_over
from sdevid.evaluate.statistics.quality import decibels, squared_error
from sdevid.evaluate.table import plain
from sdevid.models.history_model import HistoryModel
from sdevid.models.temporal import History
from sdevid.objectives.history_objective import HistoryObjective

CLIPS, BATCH = 64, 16
STEPS = (1, 3, 10)  # frames ahead
ORIGINS = 4  # frames of a clip that steps start from, at most
SHORT = 0.25  # share of the variance within clips, below which they do not tell content from state
SHUFFLES = 200  # of clips, for the correlation that chance gives
NOISE = {"noise": 1.0, "no_noise": 0.0}  # temperatures

Totals = dict[str, Floats]  # by clip


def needs(context: EvalContext) -> str | None:
    """Say why this cannot run, or None: the model must have a posterior over states at frames."""
    if not isinstance(context.objective, HistoryObjective):
        return f"model_type {context.config.model_type} has no posterior over states at frames"
    return None


def run(context: EvalContext) -> Results:
    """Score every part on the evaluated clips."""
    clips = evenly(min(CLIPS, len(context.clips)), len(context.index))
    totals: dict[str, list[Floats]] = {}
    codes: list[Floats] = []
    states: list[Floats] = []
    for part in batches(clips, BATCH, "where it fails"):
        batch = stream.fixed(context.index, context.config, part)
        assert isinstance(context.objective, HistoryObjective)
        latents = encode(context.objective, batch, context.options.context)
        codes.append(_numpy(_pooled(latents.content)))
        path = _pooled(latents.states.flatten(0, 1))
        states.append(_numpy(torch.unflatten(path, 0, latents.states.shape[:2])))
        for name, value in _totals(context, latents).items():
            totals.setdefault(name, []).append(value)
    by_clip = {name: np.concatenate(parts) for name, parts in totals.items()}
    return {
        "failures": {
            "clips": len(clips),
            "context": context.options.context,
            "psnr": {
                name.removeprefix("psnr_"): mean_over(value).as_json()
                for name, value in by_clip.items()
                if name.startswith("psnr_")
            },
            "shift_slope": _each(by_clip, "shift_with", "shift_real", _slope),
            "brightness": _each(by_clip, "brightness", "brightness_real", ratio_of_means),
            "sharpness": _each(by_clip, "sharpness", "sharpness_real", ratio_of_means),
            "nats": {
                name: mean_over(value).as_json()
                for name, value in by_clip.items()
                if name.startswith("kl_")
            },
            "content_state_correlation": largest_correlation(
                np.concatenate(codes), np.concatenate(states)[:, 0]
            )
            | {"state_change": finite(change_within(np.concatenate(states)))},
        }
    }


@torch.no_grad()
def _totals(context: EvalContext, latents: EncodedClips) -> Totals:
    """Sum, by clip, scores of the posterior's reconstruction and of steps of the prior."""
    model, last = context.objective.model, latents.states.shape[1] - 1
    assert isinstance(model, HistoryModel)
    real, history = latents.frames, latents.context.history
    decoded = _frames(model, latents.states, latents.content, history, latents.ticks)
    pairs = ((decoded[:, 1:], decoded[:, :-1]), (real[:, 1:], real[:, :-1]))
    totals: Totals = compared("posterior", *pairs)
    start = prior_start(model, latents, context.seed)
    begun = _frames(model, start[1][:, None], start[0], history, latents.ticks[:, :1])
    totals["psnr_prior_start"] = _psnr(begun, real[:, :1])
    for steps in (steps for steps in STEPS if steps <= last):
        origins = np.unique(np.linspace(0, last - steps, ORIGINS).astype(int)).tolist()
        now, then = real[:, origins], real[:, [k + steps for k in origins]]
        totals[f"psnr_still_{steps}"] = _psnr(now, then)
        for noise, temperature in NOISE.items():
            states = [(latents.content, latents.states[:, k]) for k in origins]
            generated = _steps(context, latents, states, origins, steps, temperature)
            totals |= compared(f"from_posterior_{steps}_{noise}", generated, (then, now))
            generated = _steps(context, latents, [start], [0], steps, temperature)
            own = real[:, steps : steps + 1], real[:, :1]
            totals |= compared(f"from_prior_start_{steps}_{noise}", generated, own)
    nats = {f"{k}_a_frame" if k == "kl_path" else k: v for k, v in latents.nats.items()}
    return totals | {k: v / max(last, 1) if k == "kl_path_a_frame" else v for k, v in nats.items()}


Pair = tuple[Tensor, Tensor]  # frames, and those that they came from


def _steps(
    context: EvalContext,
    latents: EncodedClips,
    starts: list[Pair],
    origins: list[int],
    steps: int,
    temperature: float,
) -> Pair:
    """Decode `starts` (w, z) at the frames `origins`, and the prior's states `steps` later."""
    model = context.objective.model
    assert isinstance(model, HistoryModel)
    later = [
        prior_steps(model, latents, start, (k, k + steps), temperature, context.seed)
        for start, k in zip(starts, origins, strict=True)
    ]
    w, now = starts[0][0], torch.stack([z for _, z in starts], dim=1)
    history, ticks = latents.context.history, latents.ticks
    after = ticks[:, [k + steps for k in origins]]
    generated = _frames(model, torch.stack(later, dim=1), w, history, after)
    return generated, _frames(model, now, w, history, ticks[:, origins])


def _frames(model: HistoryModel, z: Tensor, w: Tensor, history: History, ticks: Tensor) -> Tensor:
    """Decode states to frames in [0, 1]."""
    return model.pictures.decode(model.decode(z, w, history, ticks))


def compared(name: str, generated: Pair, real_pair: Pair) -> Totals:
    """Compute PSNR, shifts, brightness and sharpness of frames.

    Frames are (clips, frames, channels, height, width). A shift is that of the centroid of what
    stands out, between the two frames of a pair. Pixels that are NaN in a real frame count in
    neither.
    """
    (frames, before), (real, real_before) = generated, real_pair
    frames, before = _masked(frames, real), _masked(before, real_before)
    shift, true = centroid(frames) - centroid(before), centroid(real) - centroid(real_before)
    known = np.isfinite(shift) & np.isfinite(true)
    return {
        f"psnr_{name}": _psnr(frames, real),
        f"shift_with_{name}": np.where(known, shift * true, 0).sum(axis=(1, 2)),
        f"shift_real_{name}": np.where(known, true * true, 0).sum(axis=(1, 2)),
        f"brightness_{name}": _by_clip(frames),
        f"brightness_real_{name}": _by_clip(real),
        f"sharpness_{name}": _by_clip(_gradient(frames)),
        f"sharpness_real_{name}": _by_clip(_gradient(real)),
    }


def centroid(frames: Tensor) -> Floats:
    """Compute centroids (..., 2), right and down in pixels, of what differs from the median.

    Pixels that are NaN weigh nothing.
    """
    light = frames.mean(dim=-3)
    weight = (light - light.flatten(-2).nanmedian(-1).values[..., None, None]).abs()
    weight = weight.nan_to_num(0.0)
    right = torch.arange(light.shape[-1], device=light.device, dtype=light.dtype)
    down = torch.arange(light.shape[-2], device=light.device, dtype=light.dtype)
    mass = weight.sum(dim=(-2, -1))
    mass = torch.where(mass > 0, mass, torch.nan)
    place = torch.stack([weight.sum(-2) @ right / mass, weight.sum(-1) @ down / mass], dim=-1)
    return _numpy(place)


def change_within(states: Floats) -> float:
    """Compute the share of the variance of `states` that lies within clips.

    `states` are (clips, frames, components). 1 where a clip sees all that the state does, 0 where
    the state stays for a whole clip: then nothing tells what stays from what moves. NaN for one
    frame.
    """
    within, whole = states.var(axis=1).mean(axis=0).sum(), states.var(axis=(0, 1)).sum()
    return float(within / whole) if states.shape[1] > 1 and whole > 0 else float("nan")


def largest_correlation(codes: Floats, states: Floats) -> dict[str, Any]:
    """Find the largest |correlation|, over clips, of a component of w and one of the first state.

    `chance` is its median where the clips are shuffled. None below eight clips.
    """
    if len(codes) < 8:
        return {"mean": None, "chance": None}

    def standard(values: Floats) -> Floats:
        scale = values.std(axis=0)
        scores: Floats = (values - values.mean(axis=0)) / np.where(scale > 0, scale, np.inf)
        return scores

    a, b, rng = standard(codes), standard(states), np.random.default_rng(0)
    shuffled = [np.abs(a.T @ rng.permutation(b)).max() / len(a) for _ in range(SHUFFLES)]
    return {
        "mean": finite(float(np.abs(a.T @ b).max() / len(a))),
        "chance": finite(float(np.median(shuffled))),
    }


def _slope(products: Floats, squares: Floats) -> Estimate:
    """Fit the slope through the origin of generated on real shifts, by bootstrap over the clips."""

    def statistic(weight: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            slope: Floats = (weight @ products) / (weight @ squares)
        return slope

    return bootstrap(len(products), statistic)


def _each(by_clip: Totals, above: str, below: str, statistic: Any) -> dict[str, Any]:
    """Apply `statistic` to every pair of totals called `above`_NAME and `below`_NAME."""
    names = [key.removeprefix(f"{below}_") for key in by_clip if key.startswith(f"{below}_")]
    return {
        name: statistic(by_clip[f"{above}_{name}"], by_clip[f"{below}_{name}"]).as_json()
        for name in names
    }


def _psnr(frames: Tensor, real: Tensor) -> Floats:
    a, b = (_numpy(part.movedim(-3, -1)) for part in (frames, real))
    error = torch.from_numpy(squared_error(a, b)).nanmean(dim=1)  # NaN: no frame was observed
    value: Floats = decibels(error.numpy())
    return value


def _masked(frames: Tensor, real: Tensor) -> Tensor:
    """Mark as NaN what was not observed in the `real` frames, which `frames` broadcast with."""
    return torch.where(real.isnan(), torch.nan, frames)


def _gradient(frames: Tensor) -> Tensor:
    """Compute the size of the difference to the pixels below and to the right."""
    across = frames[..., :-1, 1:] - frames[..., :-1, :-1]
    down = frames[..., 1:, :-1] - frames[..., :-1, :-1]
    return (across.square() + down.square()).sqrt()


def _pooled(state: Tensor) -> Tensor:
    """Average a map over its places; leave a vector as it is."""
    return state.flatten(2).mean(2) if state.dim() > 2 else state


def _by_clip(values: Tensor) -> Floats:
    return _numpy(values.flatten(1).nanmean(1))


def _numpy(values: Tensor) -> Floats:
    array: Floats = values.double().cpu().numpy()
    return array


def rows(results: Results) -> Iterator[Row]:
    """Yield every part, with standing still or the real as notes."""
    if "failures" not in results:
        return
    scores = results["failures"]
    head = f"Where it fails, {scores['clips']} clips, {scores['context']} frames given"
    for name, entry in scores["psnr"].items():
        yield Row(f"{head}: PSNR, dB", plain(name), entry)
    for key, title, note in (
        (
            "shift_slope",
            "slope of the centroid's shift on the real one",
            "1 is right, 0 stands still",
        ),
        ("brightness", "brightness as a share of the real", ""),
        ("sharpness", "sharpness as a share of the real", ""),
    ):
        for name, entry in scores[key].items():
            yield Row(f"{head}: {title}", plain(name), entry, note)
    for name, entry in scores["nats"].items():
        yield Row(f"{head}: nats", plain(name), entry)
    correlation = scores["content_state_correlation"]
    chance = correlation["chance"]
    note = "fewer than 8 clips" if chance is None else f"by chance {chance:.2f}"
    change = correlation.get("state_change")
    if change is not None and change < SHORT:
        note += (
            "; clips are too short to tell content from state: "
            f"{change:.0%} of its variance lies within a clip"
        )
    yield Row(f"{head}: content", "largest correlation of w with the state", correlation, note)


METRIC = Metric(
    name="failures",
    summary=(
        "where it fails: PSNR of the posterior's frames, of 1, 3 and 10 prior steps from its state "
        "and from the prior's own start, noise on and off, beside standing still; slope of "
        "centroid shifts; brightness and sharpness as shares of the real; KL; correlation of w "
        "with the state"
    ),
    run=run,
    rows=rows,
    needs=needs,
)

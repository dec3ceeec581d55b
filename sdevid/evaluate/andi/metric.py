"""The Anomalous Diffusion Challenge 2 on its fields: VIPs followed by the model and by trackers.

All sides get the VIPs' places in the first frame, as the challenge gives their mask, and the same
fit reads segments off the tracks. Beside them stand the same fit of the true places, and one
constant motion for every particle.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from sdevid.data import andi
from sdevid.evaluate.andi.motion import segments
from sdevid.evaluate.andi.scores import (
    ENSEMBLE,
    FREE,
    SINGLE,
    Segments,
    ensemble_scores,
    one_state,
    single_scores,
)
from sdevid.evaluate.blobs import Tracker
from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.law.tracking import FilmTracker, TrackpyTracker
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.particles.model_law import NEAR, Windows, windows
from sdevid.evaluate.progress import batches
from sdevid.evaluate.statistics.bootstrap import bootstrap
from sdevid.evaluate.statistics.estimate import Floats
from sdevid.models.particles.model import ParticleSDE
from sdevid.objectives.clip_objective import Clips
from sdevid.objectives.particles import ParticleObjective
from sdevid.types import as_frames

TRACKERS: dict[str, FilmTracker] = {
    "centroids": Tracker(threshold=0.09, reach=8.0, sign="bright"),
    "trackpy": TrackpyTracker(diameter=5, threshold=0.09, reach=8.0, sign="bright"),
}
LEAST = 8  # frames of a track that is fitted

Tracks = list[Floats]  # (frames, 2) each, from the first frame on where it follows a VIP


class Field(NamedTuple):
    """One clip's truth and its tracks by one way of following."""

    vips: list[Segments]
    ensemble: Floats
    places: Floats  # of the VIPs in the first frame, (vips, 2)
    frames: int


def constant(frames: int) -> Segments:
    """Return the challenge's typical particle: alpha 1, K 1 pixel^2 / frame, free throughout."""
    return Segments([frames], [1.0], [1.0], [FREE])


def answer(field: Field, starting: Tracks, others: Tracks) -> dict[str, Any]:
    """Score tracks of one field.

    `starting` begin in the first frame. A VIP is followed by the nearest within `NEAR` pixels, and
    stands as `constant` where there is none of `LEAST` frames.
    """
    chosen: dict[int, Floats] = {}
    for number, place in enumerate(field.places):
        apart = [float(np.linalg.norm(track[0] - place)) for track in starting]
        if apart and min(apart) < NEAR and len(starting[int(np.argmin(apart))]) >= LEAST:
            chosen[number] = starting[int(np.argmin(apart))]
    predicted = [
        segments(chosen[number]) if number in chosen else constant(field.frames)
        for number in range(len(field.vips))
    ]
    lasting = [segments(track) for track in [*starting, *others] if len(track) >= LEAST]
    return _scored(field, predicted, lasting) | {"followed": len(chosen) / len(field.vips)}


def _scored(field: Field, predicted: list[Segments], everyone: list[Segments]) -> dict[str, float]:
    ensemble = one_state(everyone or [constant(field.frames)])
    return single_scores(field.vips, predicted) | ensemble_scores(field.ensemble, ensemble)


def evaluate(context: EvalContext) -> dict[str, Any]:
    """Score every field; a figure averages over fields by their VIPs, as the challenge does."""
    sources: dict[str, list[dict[str, float]]] = {}
    counts, left_out = [], _left_out()
    trackers = {name: each for name, each in TRACKERS.items() if name not in left_out}
    for part in batches(context.clips, 1, "fields of view"):
        for clip in part:
            meta = context.index.read(clip).meta
            frames = context.index.clips[clip].num_frames
            whole = context.config.model_copy(update={"sequence_length": frames})
            film, field = windows(context.index, whole, clip), _field(meta, frames)
            counts.append(len(field.vips))
            true = [np.array(track["places"]) for track in meta["tracks"]]
            still = [constant(field.frames)]
            by_source = {
                "the model's posterior": answer(field, *_followed(context, film)),
            }
            by_source |= {
                name: answer(field, *_tracked(film, tracker)) for name, tracker in trackers.items()
            }
            by_source |= {
                "true places": answer(field, true[: len(field.vips)], true[len(field.vips) :]),
                "constant": _scored(field, still * len(field.vips), still),
            }
            for name, scores in by_source.items():
                sources.setdefault(name, []).append(scores)
    weights = np.array(counts, np.float64)
    return {
        "fields": len(counts),
        "vips": sum(counts),
        "left_out": left_out,
        "sources": {
            name: {key: _average(each, key, weights) for key in each[0]}
            for name, each in sources.items()
        },
    }


def _average(fields: Sequence[dict[str, float]], key: str, weights: Floats) -> dict[str, Any]:
    values = np.array([field[key] for field in fields])
    return bootstrap(
        len(values), lambda drawn: drawn @ (weights * values) / (drawn @ weights)
    ).as_json()


def _field(meta: dict[str, Any], frames: int) -> Field:
    vips = meta["tracks"][: meta["vips"]]
    return Field(
        vips=[Segments.of(track) for track in vips],
        ensemble=np.array(meta["ensemble"], np.float64),
        places=np.array([track["places"][0] for track in vips]),
        frames=frames,
    )


@torch.no_grad()
def _followed(context: EvalContext, film: Windows) -> tuple[Tracks, Tracks]:
    """Draw the posterior's path of every particle that is present, as long as it is in the field.

    `film` is one window, the whole clip, whatever the training length.
    """
    objective, model = context.objective, context.model
    assert isinstance(objective, ParticleObjective)
    assert isinstance(model, ParticleSDE)
    video, ticks, serial = (part.to(context.device) for part in film)
    draw = objective.posterior(Clips(video, ticks, serial, context=1))
    present = (draw.birth.content.logit[0, :, 0] > 0).cpu().numpy()
    places = model.layout.split(draw.path.states)[0][0].cpu().double().numpy()
    side = context.config.frame_size
    inside = ((places > -0.5) & (places < side - 0.5)).all(-1)
    stays = np.where(inside.all(0), len(places), inside.argmin(0))
    return [places[: stays[k], k] for k in np.flatnonzero(present) if stays[k]], []


def _left_out() -> dict[str, str]:
    """Say which trackers cannot run here, and why."""
    if importlib.util.find_spec("trackpy") is not None:
        return {}
    return {"trackpy": "it is not installed; pip install 'sdevid[trackpy]'"}


def _tracked(film: Windows, tracker: FilmTracker) -> tuple[Tracks, Tracks]:
    """Track a film: particles that are there in the first frame, and all others."""
    grey = as_frames(film.video)[0].mean(1).double().numpy()
    tracks, _ = tracker.follow(grey)
    first = {tuple(track[0]) for track in tracker.follow(grey[:1])[0]}
    starting = [track for track in tracks if tuple(track[0]) in first]
    return starting, [track for track in tracks if tuple(track[0]) not in first]


def needs(context: EvalContext) -> str | None:
    """Say why this cannot run, or None: fields of the challenge, its package, and particles."""
    if (context.truth or {}).get("challenge") != "andi2":
        return f"the shards are of {context.index.dataset.get('dataset')}, not of andi"
    if not isinstance(context.model, ParticleSDE):
        return "the model has no particles to follow (sde.latent: particles)"
    return andi.unavailable()


def run(context: EvalContext) -> Results:
    """Score the followed VIPs."""
    return {"andi": evaluate(context)}


TITLES = dict(
    zip(
        (*SINGLE, *ENSEMBLE),
        (
            "RMSE of change points, frames",
            "Jaccard index of change points",
            "MAE of alpha",
            "MSLE of K",
            "F1 of states",
            "Wasserstein distance of alpha",
            "Wasserstein distance of K",
        ),
        strict=True,
    )
) | {"followed": "VIPs followed, share"}


def rows(results: Results) -> Iterator[Row]:
    """Yield the scores, source by source."""
    if "andi" not in results:
        return
    entry = results["andi"]
    for source, scores in entry["sources"].items():
        section = f"Anomalous Diffusion Challenge, {entry['vips']} VIPs: {source}"
        for key, title in TITLES.items():
            if key in scores:
                yield Row(section, title, scores[key])
    for name, reason in entry["left_out"].items():
        yield Row("Anomalous Diffusion Challenge: left out", name, {"mean": None}, reason)


METRIC = Metric(
    name="andi",
    summary="the Anomalous Diffusion Challenge 2 on its fields, by its own code (sdevid[andi])",
    run=run,
    rows=rows,
    needs=needs,
    automatic=False,
)

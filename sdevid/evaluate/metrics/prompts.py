"""Whether generated video shows what its prompt says: is the nearest real clip one of that caption?

A prompt is a caption of the training split. Near is by the mean square of pixels over a whole
clip, less that clip's mean over the videos of all prompts: else a blurred video is nearest to the
plainest clip, whatever its prompt. So this measures that the text is heeded, not how well it
looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sdevid.data import stream
from sdevid.evaluate.context import EvalContext
from sdevid.evaluate.generation import prompted
from sdevid.evaluate.metric import Metric, Results, Row
from sdevid.evaluate.progress import batches, evenly
from sdevid.evaluate.statistics.estimate import Floats, mean_over
from sdevid.evaluate.statistics.observed import Values, in_unit_range
from sdevid.evaluate.table import number
from sdevid.models import text

REAL = 512  # clips of the training split, at most
PROMPTS, VIDEOS = 16, 4  # prompts at most, and videos of each
SCALES = (1.0, 3.0)  # of guidance


def followed(context: EvalContext) -> dict[str, Any]:
    """Measure the share of videos whose nearest real clip bears their prompt, by guidance scale.

    By chance it is the share of clips that bear it. Each scale also has what guidance spent, in
    nats.
    """
    read = text.tokenizer(context.config)
    assert read is not None
    videos, captions = _real(context)
    every = sorted(set(captions) - {""})
    prompts = [every[i] for i in evenly(PROMPTS, len(every))] if every else []
    real = in_unit_range(videos).reshape(len(videos), -1)
    scales: dict[str, Any] = {}
    for scale in SCALES if prompts else ():
        apart, nats = [], []
        for part in batches(range(len(prompts)), 1, f"prompts, guidance {scale:g}"):
            prompt = prompts[part.start]
            serials = range(part.start * VIDEOS, (part.start + 1) * VIDEOS)
            generated, spent = prompted(context.model, read, prompt, scale, serials, context.seed)
            flat = in_unit_range(generated).reshape(len(generated), -1)
            apart += [np.nanmean(np.square(real - one), axis=1) for one in flat]
            nats += spent
        nearest = (np.array(apart) - np.mean(apart, axis=0)).argmin(axis=1)
        named = [captions[clip] for clip in nearest]
        hits = np.array(named).reshape(len(prompts), VIDEOS) == np.array(prompts)[:, None]
        units: Floats = hits.mean(axis=1)
        cost: Floats = np.array(nats).reshape(len(prompts), VIDEOS).mean(axis=1)
        scales[f"{scale:g}"] = {
            "share": mean_over(units).as_json(),
            "nats": mean_over(cost).as_json(),
        }
    bearing = sum(captions.count(prompt) for prompt in prompts)
    chance = bearing / len(prompts) / len(captions) if prompts else None
    return {"prompts": prompts, "videos": VIDEOS, "chance": chance, "scales": scales}


def _real(context: EvalContext) -> tuple[Values, list[str]]:
    """Read clips of the training split and their captions."""
    videos: list[Values] = []
    captions: list[str] = []
    for part in batches(evenly(REAL, len(context.training)), 32, "training clips"):
        batch = stream.fixed(context.training, context.config, part)
        videos.append(batch.values)
        captions += batch.captions
    return np.concatenate(videos), captions


def needs(context: EvalContext) -> str | None:
    """Say why this cannot run, or None: the model must read text."""
    untold = context.config.text.encoder == "none"
    return "the model was trained without text (text.encoder is none)" if untold else None


def run(context: EvalContext) -> Results:
    """Measure the shares of prompts followed."""
    return {"prompts": followed(context)}


def rows(results: Results) -> Iterator[Row]:
    """Yield share and cost by guidance scale."""
    if "prompts" not in results:
        return
    entries = results["prompts"]
    section = f"Prompts followed: {entries['videos']} videos of each of {len(entries['prompts'])}"
    if not entries["scales"]:
        yield Row(section, "share", {"mean": None}, "no clip bears a caption or a label")
    for scale, entry in entries["scales"].items():
        note = f"by chance {number(entries['chance'])}"
        yield Row(section, f"nearest clip of that caption, guidance {scale}", entry["share"], note)
        yield Row(section, f"nats spent, guidance {scale}", entry["nats"])


METRIC = Metric(
    name="prompts",
    summary=(
        "share of free videos whose nearest training clip bears their prompt, at guidance 1 and 3, "
        "beside chance; near in pixels, less a clip's mean distance from the videos of all prompts"
    ),
    run=run,
    rows=rows,
    needs=needs,
    automatic=False,
)

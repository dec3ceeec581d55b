"""The frames between given ones: what is given, what is scored, and by which place."""

from pathlib import Path
from types import SimpleNamespace

import factories
import numpy as np
import pytest
import torch

from sdevid import objectives
from sdevid.config import parse
from sdevid.evaluate.context import EvalContext, EvalOptions
from sdevid.evaluate.ensembles import between

SMALL = factories.settings(
    frame_size=8,
    sequence_length=7,
    sde={"latent_size": 2, "content_size": 2, "hidden": 8, "steps_per_frame": 1},
    encoder={"channels": 4, "features": 8},
    observation={"keyframes_fraction": 0.5},
)


@pytest.fixture
def context(monkeypatch):
    """Five clips whose grey level rises evenly, each of its own film."""
    config = parse(SMALL)
    level = 20 * np.arange(7, dtype=np.uint8)[None, :, None, None, None]
    videos = np.broadcast_to(level, (5, 7, 8, 8, 1)) + np.arange(5, dtype=np.uint8).reshape(
        -1, 1, 1, 1, 1
    )
    ticks = config.frame_ticks(7)

    def fixed(_index, _config, part):
        return SimpleNamespace(
            video=torch.from_numpy(videos[part.start : part.stop].copy()),
            values=videos[part.start : part.stop],
            ticks=ticks.expand(len(part), -1),
            serial=torch.tensor(part),
            keys=tuple(map(str, part)),
        )

    monkeypatch.setattr(between.stream, "fixed", fixed)
    monkeypatch.setattr(between.baselines, "past_clips", lambda _: videos)
    clips = [SimpleNamespace(source=f"film {k}") for k in range(5)]
    index = type("Index", (), {"dataset": {}, "clips": clips, "__len__": lambda _: 5})()

    def make(**options):
        arguments = EvalOptions(Path("unused"), samples=3, **options)
        model = objectives.build(config).model.eval()
        return EvalContext(model, config, index, index, range(5), arguments)

    return make


def test_linear_interpolation_of_a_line_is_exact(context):
    scores = between.run(context(every=3))["between"]
    crps = {name: one["channels"][0]["crps"]["1"] for name, one in scores["forecasts"].items()}
    assert crps["linear_interpolation"]["mean"] == pytest.approx(0, abs=1e-4)
    assert crps["frame_before"]["by_lead"] == [20.0, 40.0]  # one and two frames after it
    assert len(crps["model"]["by_lead"]) == 2
    assert scores["forecasts"]["model"]["channels"][0]["coverage"]["0.9"]["mean"] is not None
    titles = [row.section for row in between.rows({"between": scores})]
    assert any("1 frame of 3 given: fair CRPS, grey levels" in title for title in titles)


def test_flow_interpolation_of_an_even_motion_beats_a_blend():
    at = np.arange(48.0)

    def frame(t):
        x, y = at - 0.8 * t, at[:, None] + 0.5 * t
        wave = 0.5 + 0.2 * np.sin(0.5 * x + 0.3 * y) + 0.2 * np.cos(0.4 * y - 0.3 * x)
        return wave[..., None].astype(np.float32)

    ends, share = np.stack([frame(0), frame(4)]), np.array([0.25, 0.5, 0.75], np.float32)
    flow = between.flow_interpolation(ends, ends, np.zeros(3, int), share)
    for k, found in enumerate(flow):
        blend = (1 - share[k]) * ends[0] + share[k] * ends[1]
        error, worse = (abs(x - frame(k + 1))[8:-8, 8:-8].mean() for x in (found, blend))
        assert error < 0.3 * worse


def test_end_frames_alone_leave_one_gap(context):
    scores = between.run(context())["between"]
    assert scores["every"] == 6
    assert len(scores["forecasts"]["model"]["channels"][0]["rmse"]["by_lead"]) == 5


def test_needs_name_what_is_missing(context):
    assert between.needs(context(every=3)) is None
    assert "--every is 1" in between.needs(context(every=1))
    assert "--every is 7" in between.needs(context(every=7))
    onward = context()
    config = parse(SMALL | {"observation": {"max_context": 3}})
    object.__setattr__(onward, "config", config)
    assert "initial frames alone" in between.needs(onward)

"""What a life remembers: conditions by place, and a bridge's anchor and noise on what it leaves."""

from __future__ import annotations

from typing import Any

import factories
import pytest
import torch

from sdevid.config import Config, parse
from sdevid.errors import UserError
from sdevid.models.follmer import Anchors, Memory
from sdevid.models.sampling import SamplerConfig
from sdevid.objectives import build
from sdevid.objectives.clip_objective import Clips
from sdevid.objectives.history_objective import HistoryObjective
from sdevid.types import frame_ticks

FRAMES = 5
SMALL = factories.settings(
    frame_size=32, sequence_length=FRAMES, observation={"max_context": 2}, encoder={"map_size": 8}
)
SDE = {"latent": "map", "latent_size": 3, "content_size": 2, "hidden": 16, "depth": 1}
MEMORY = {"anchor": True, "context_noise": 0.5, "context_noise_told": 0.25, "steps": 3}


def config(kind: str, *, cells: bool = True, **follmer: Any) -> Config:
    sde = SDE | {"conditions": "cells" if cells else "mean"}
    return parse(SMALL | {"model_type": kind, "sde": sde, "follmer": MEMORY | follmer})


def objective(kind: str, **more: Any) -> HistoryObjective:
    clip_objective = build(config(kind, **more))
    torch.manual_seed(0)
    return factories.shake(clip_objective)


@pytest.mark.parametrize("kind", ["latent_sde", "sde_matching", "follmer"])
def test_every_parameter_learns(kind):
    clip_objective = objective(kind)
    torch.manual_seed(1)
    video = torch.randint(0, 256, (8, FRAMES, 32, 32, 1), dtype=torch.uint8)
    terms = clip_objective(
        video, frame_ticks(FRAMES, 8.0).expand(8, -1), torch.arange(8), kl_weight=1.0
    )
    terms["loss"].backward()
    still = [
        n
        for n, p in clip_objective.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert still == []


@torch.no_grad()
def test_context_of_a_cell_changes_coefficients_there_alone():
    prior = objective("latent_sde").model.prior
    torch.manual_seed(2)
    w, z, c = torch.randn(1, 2), torch.randn(1, 3, 8, 8), torch.randn(1, 64, 16)
    swapped = c.clone()
    swapped[:, [9, 54]] = c[:, [54, 9]]  # the mean over cells stays: what moves is told by place
    before, after = (prior(z, prior.conditions(w, c)) for c in (c, swapped))
    shifted = [(a - b).abs().amax(1)[0] > 1e-6 for a, b in zip(before, after, strict=True)]
    drift, diffusion = shifted
    assert diffusion.nonzero().tolist() == [[1, 1], [6, 6]]
    assert bool(drift[1, 1])
    assert not bool(drift[1, 6] | drift[6, 1])  # out of reach of the convolutions


def test_conditions_by_cell_start_with_one_diffusion():
    prior = build(config("latent_sde")).model.prior
    g = prior.conditions(torch.randn(1, 2), torch.randn(1, 64, 16)).diffusion
    torch.testing.assert_close(g, g[..., :1, :1].expand_as(g))


@torch.no_grad()
def test_bridge_drift_depends_on_its_anchor_and_noise_level():
    model = objective("follmer").model
    torch.manual_seed(2)
    x0, known = torch.randn(2, 3, 8, 8), torch.randn(2, 16, 1, 1)
    arguments = x0, torch.tensor([0.3, 0.6]), x0, torch.ones(2), known

    def drift(anchor: torch.Tensor, level: float) -> torch.Tensor:
        out: torch.Tensor = model.bridge(*arguments, Memory(anchor, torch.full((2,), level)))
        return out

    plain = drift(x0, 0.1)
    assert float((drift(-x0, 0.1) - plain).abs().max()) > 1e-3
    assert float((drift(x0, 0.4) - plain).abs().max()) > 1e-3


def test_anchor_is_the_first_state_or_one_every_so_many():
    states = [torch.full((1, 1), float(k)) for k in range(5)]
    for every, expected in ((None, [0, 0, 0, 0, 0]), (2, [0, 0, 2, 2, 4])):
        anchors = Anchors(config("follmer", anchor_every=every))
        memories = [anchors.at(z) for z in states]
        assert [float(memory.anchor) for memory in memories] == expected
        assert {float(memory.level) for memory in memories} == {0.25}


@torch.no_grad()
def test_windows_of_an_anchored_video_have_no_seam():
    model = objective("follmer", anchor_every=4).model
    ticks, sampler = (
        frame_ticks(11, 8.0).expand(2, -1),
        SamplerConfig(seed=3, serial=torch.arange(2)),
    )
    whole = model.generate(ticks, sampler).frames
    parts = torch.cat([part.frames for part in model.chunks(ticks, sampler, size=3)], 1)
    torch.testing.assert_close(parts, whole, rtol=0, atol=2e-5)


@torch.no_grad()
def test_noise_in_training_is_as_large_as_it_is_told():
    clip_objective = objective("follmer")
    z = torch.zeros(400, FRAMES, *clip_objective.model.latent_shape)
    video, ticks = torch.zeros(1, FRAMES, 32, 32, 1, dtype=torch.uint8), frame_ticks(FRAMES, 8.0)
    clips = clip_objective.encode(Clips(video, ticks[None], torch.arange(1)))
    left, memory = clip_objective._memory(z, clips._replace(serial=torch.arange(400)))
    spread = left.flatten(2).std(2).flatten()
    torch.testing.assert_close(spread, memory.level, rtol=0.3, atol=0.01)
    assert 0.2 < float(memory.level.mean()) < 0.3
    assert float(memory.level.max()) <= 0.5


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"follmer": {"anchor": True, "anchor_every": 5}}, r"follmer\.anchor_every is 5"),
        ({"follmer": {"anchor_every": 2}}, r"follmer\.anchor is false"),
        ({"follmer": {"context_noise_told": 0.1}}, r"follmer\.context_noise_told"),
        ({"sde": {"conditions": "cells"}}, r"sde\.conditions is cells"),
    ],
)
def test_memory_that_cannot_be_names_the_setting(settings, name):
    with pytest.raises(UserError, match=name):
        parse(SMALL | settings)

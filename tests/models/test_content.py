"""What does not move: a content with places, and features of the last observed frame."""

from __future__ import annotations

from typing import Any

import factories
import pytest
import torch

from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.models.encoder import LastFrame
from sdevid.models.sampling import Conditioning, SamplerConfig
from sdevid.models.start import Guidance
from sdevid.objectives import build
from sdevid.objectives.clip_objective import Clips
from sdevid.objectives.history_objective import HistoryObjective
from sdevid.types import frame_ticks

FRAMES = 5
SMALL = factories.settings(
    sequence_length=FRAMES,
    observation={"free_fraction": 0.3},
    encoder={"causal": True, "skip": True, "across_cells": True},
    birth={"steps": 4, "hidden": 16, "heads": 2, "depth": 1},
)
MAP = factories.MAP | {"content": "map"}


def objective(kind: str = "latent_sde", **sde: Any) -> HistoryObjective:
    clip_objective = build(parse(SMALL | {"model_type": kind, "sde": MAP | sde}))
    torch.manual_seed(0)
    return factories.shake(clip_objective)


@pytest.mark.parametrize("kind", ["latent_sde", "sde_matching", "follmer"])
@pytest.mark.parametrize("more", [{"start": "birth"}, {"conditions": "cells"}])
def test_every_parameter_learns(kind, more):
    clip_objective = objective(kind, **more)
    clip_objective(*factories.clips(16, FRAMES), kl_weight=1.0)["loss"].backward()
    still = [
        n
        for n, p in clip_objective.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert still == []


@pytest.mark.parametrize("start", ["gaussian", "birth"])
@torch.no_grad()
def test_content_map_costs_nothing_where_a_frame_is_seen(start):
    clip_objective = objective(start=start).eval()
    seen, free = (
        clip_objective.terms(*factories.clips(4, FRAMES), context=count) for count in (2, 0)
    )
    name = "kl_birth" if start == "birth" else "kl_content"
    assert float(seen[name].abs().max()) < 1e-5
    assert bool((free[name] != 0).all())


@torch.no_grad()
def test_content_of_a_cell_comes_from_that_cell():
    clip_objective = objective()
    video, ticks, serial = factories.clips(1, FRAMES)
    history = clip_objective.encode(Clips(video, ticks, serial, context=2)).context
    summary = history.summary.clone()
    summary[:, 6] += 1
    before = clip_objective.model.start_prior.continued(history)[0].mean
    after = clip_objective.model.start_prior.continued(history._replace(summary=summary))[0].mean
    assert (before - after).abs().amax(1)[0].nonzero().tolist() == [[1, 2]]


@torch.no_grad()
def test_content_of_a_cell_is_drawn_around_its_place():
    model = objective().model
    z, w = torch.randn(1, 1, 3, 4, 4), torch.randn(1, 2, 4, 4)
    other = w.clone()
    other[..., 0, 0] += 1
    seeds = [model.decoder.seed(z[:, 0], content) for content in (w, other)]
    shifted = (seeds[0] - seeds[1]).abs().amax(1)[0] > 1e-6
    assert shifted.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


@torch.no_grad()
def test_content_map_is_born_where_no_frame_is_seen():
    model = objective(start="birth").model
    context, _ = model.encode_context(frame_ticks(2)[None], Conditioning(), False)
    first, again = (
        model.start_prior.sample(context.history, seed, torch.tensor([0]), Guidance())
        for seed in (0, 1)
    )
    assert first.w.shape == (1, 2, 4, 4)
    assert bool(((first.w - again.w).abs() > 1e-4).all())


@torch.no_grad()
def test_skip_is_of_the_last_observed_frame_alone():
    clip_objective = objective()
    video, ticks, serial = factories.clips(2, FRAMES)

    def skip(changed: int, context: int) -> torch.Tensor:
        other = video.clone()
        other[:, changed] = 255 - other[:, changed]
        maps = clip_objective.encode(Clips(other, ticks, serial, context=context)).context.last.maps
        return torch.cat([each.flatten(1) for each in maps], dim=1)

    last, earlier, later = (skip(changed, context=3) for changed in (2, 1, 3))
    torch.testing.assert_close(earlier, later)
    assert float((last - later).abs().max()) > 1e-3
    assert float(skip(0, context=0).abs().max()) == 0


@torch.no_grad()
def test_skip_of_sampling_is_that_of_training():
    clip_objective = objective()
    video, ticks, serial = factories.clips(2, FRAMES)
    trained = clip_objective.encode(Clips(video, ticks, serial, context=3)).context.last.maps
    frames = video[:, :3].movedim(-1, 2) / 255
    conditioning = Conditioning(frames, ticks[:, :3])
    sampled = clip_objective.model.encode_context(ticks[:, 3:], conditioning, False)[
        0
    ].history.last.maps
    for one, other in zip(trained, sampled, strict=True):
        torch.testing.assert_close(one, other)


@torch.no_grad()
def test_state_says_where_a_seen_frame_is_let_in():
    model = objective().model
    z, w = torch.randn(1, 1, 3, 4, 4), torch.randn(1, 2, 4, 4)
    maps = [
        torch.randn(1, each.gate.in_channels, 4 * 2**k, 4 * 2**k)
        for k, each in enumerate(model.decoder.skips)
    ]
    last = LastFrame(tuple(reversed(maps)))
    for connection in model.decoder.skips:
        connection.gate.bias.fill_(-40.0)
    torch.testing.assert_close(model.decoder(z, w, last), model.decoder(z, w))
    for connection in model.decoder.skips:
        connection.gate.bias.zero_()
    assert float((model.decoder(z, w, last) - model.decoder(z, w)).abs().max()) > 1e-4


def test_videos_in_chunks_are_as_in_one_piece():
    model = objective().model
    ticks, serial = frame_ticks(6)[None].expand(2, -1), torch.arange(2)
    conditioning = Conditioning(torch.rand(2, 2, 1, 16, 16), ticks[:, :2])
    chunks = model.chunks(ticks[:, 2:], SamplerConfig(0, serial), conditioning, size=2)
    apart = torch.cat([chunk.frames for chunk in chunks], dim=1)
    whole = model.generate(ticks[:, 2:], SamplerConfig(0, serial), conditioning).frames
    torch.testing.assert_close(apart, whole)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"sde": MAP | {"latent": "vector"}, "encoder": {}}, r"sde\.content.*sde\.latent"),
        ({"sde": MAP, "encoder": {}}, r"sde\.content.*encoder\.causal"),
        ({"sde": factories.VECTOR}, r"encoder\.across_cells.*sde\.latent"),
    ],
)
def test_settings_that_want_cells_are_refused_without(change, names):
    with pytest.raises(UserError, match=names):
        parse(SMALL | change)

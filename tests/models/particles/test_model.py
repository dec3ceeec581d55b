"""The model of particles generates, and its objective is a bound that can be trained."""

import pytest
import torch
from torch.testing import assert_close

from sdevid import objectives
from sdevid.errors import UserError
from sdevid.models.sampling import Conditioning, SamplerConfig
from sdevid.types import as_frames, frame_ticks

SERIAL = torch.arange(3)


def film(frames: int = 6) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 255, (3, frames, 32, 32, 1), generator=draw, dtype=torch.uint8)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    "settings",
    [{}, {"presence": "depth", "ring": True}, {"walls": True, "group": 2.0}],
    ids=["static", "depth, ring", "walls, groups"],
)
def test_objective_trains_every_parameter(order, settings, small):
    config = small(order, **settings)
    objective = objectives.build(config)
    ticks = frame_ticks(6).expand(3, -1)
    with torch.no_grad():
        terms = objective(film(), ticks, SERIAL, 1.0)
    assert float(terms["elbo"]) == pytest.approx(
        float(terms["reconstruction"] - terms["kl_path"] - terms["kl_initial"]), rel=1e-4
    )
    for parameter in objective.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    for context in (0, 1):
        objective(film(), ticks, SERIAL, 1.0, context=context)["loss"].backward()
    idle = [name for name, p in objective.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_missing_pixels_count_as_ground_with_a_finite_bound(small):
    config = small(presence="depth")
    objective = objectives.build(config)
    ticks = frame_ticks(6).expand(3, -1)
    video = film().float() / 255
    video[:, 2:4, 5:20, 3:11] = torch.nan
    video[2, 5] = torch.nan
    terms = objective(video, ticks, SERIAL, 1.0)
    terms["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters() if p.grad is not None)
    missing = video[:, :1].clone()
    missing[:, 0, :4] = torch.nan
    level = missing.flatten(1).nanmedian(1).values.view(3, 1, 1, 1, 1)
    filled = torch.where(missing.isnan(), level, missing)
    reader = objective.model.reader
    for one, other in zip(
        reader.observed(as_frames(missing))[1], reader.observed(as_frames(filled))[1], strict=True
    ):
        assert_close(one, other)


def test_penalties_come_in_over_their_share_of_the_run(small):
    config = small(presence_penalty=10.0, whiteness=300.0)
    objective = objectives.build(config)
    ticks = frame_ticks(6).expand(3, -1)
    losses = {}
    for progress in (0.0, 0.3, 0.4, 0.5, 1.0):
        objective.progress.fill_(progress)
        with torch.no_grad():
            terms = objective(film(), ticks, SERIAL, 1.0)
        losses[progress] = float(terms["loss"])
    whole = 10.0 * float(terms["presence"]) + 300.0 * float(terms["step_correlation"]) ** 2
    assert losses[0.3] == pytest.approx(losses[0.0])
    assert losses[0.4] - losses[0.0] == pytest.approx(whole / 2, rel=0.02)
    assert losses[1.0] == pytest.approx(losses[0.5])
    assert losses[0.5] - losses[0.0] == pytest.approx(whole, rel=0.02)


def test_one_seed_at_twice_the_rate_walks_the_same_path(small):
    config = small()
    model = objectives.build_model(config).eval()
    context, at = film(1).permute(0, 1, 4, 2, 3) / 255, torch.zeros(3, 1, dtype=torch.int64)
    slow, fast = (frame_ticks(count, rate).expand(3, -1) for count, rate in ((5, 1), (9, 2)))
    videos = [
        model.sample(ticks, seed=1, serial=SERIAL, context=context, context_ticks=at)
        for ticks in (slow, fast)
    ]
    assert_close(videos[1][:, ::2], videos[0], atol=1e-4, rtol=1e-4)


def test_video_is_the_same_whatever_the_window_and_the_batch(small):
    model = objectives.build_model(small(presence="depth", ring=True)).eval()
    ticks, sampler = frame_ticks(6).expand(3, -1), SamplerConfig(0, SERIAL)
    whole = torch.cat([part.frames for part in model.chunks(ticks, sampler, Conditioning(), 6)], 1)
    parts = torch.cat([part.frames for part in model.chunks(ticks, sampler, Conditioning(), 2)], 1)
    alone = model.sample(ticks[1:2], seed=0, serial=SERIAL[1:2])
    assert_close(parts, whole)
    assert_close(alone, whole[1:2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("sampler", "named"),
    [
        (SamplerConfig(0, SERIAL, solver="heun"), "solver is heun"),
        (SamplerConfig(0, SERIAL, guidance_scale=2.0), "guidance_scale is 2"),
        (SamplerConfig(0, SERIAL, tolerance=0.1), "no adaptive solver"),
    ],
)
def test_carried_noise_refuses_unsupported_settings(sampler, named, small):
    model = objectives.build_model(small())
    with pytest.raises(UserError, match=named):
        model.generate(frame_ticks(3).expand(3, -1), sampler)

"""Frames between observed ones, to which both are carried."""

from typing import Any

import factories
import pytest
import torch

from sdevid.config import parse
from sdevid.models.keyframes import Keyframes, motion_between
from sdevid.models.sampling import Conditioning, SamplerConfig
from sdevid.models.transport import Motion
from sdevid.objectives import build
from sdevid.objectives.clip_objective import Clips
from sdevid.types import frame_ticks

SIDE, CELLS, FRAMES = 32, 4, 6
VELOCITY = (0.9, -0.4)  # pixels a frame, x and y
SETTINGS = factories.settings(
    frame_size=SIDE,
    sequence_length=FRAMES,
    sde=factories.MAP | {"latent_size": 4, "order": 2},
    encoder={"map_size": CELLS, "causal": True, "transport": True, "skip": True},
    observation={"max_context": 1, "ends_fraction": 1.0, "free_fraction": 0.0},
)


def film() -> torch.Tensor:
    """A smooth pattern that moves evenly, (1, frames, 1, side, side) in [0.1, 0.9]."""
    at, t = torch.arange(float(SIDE)), torch.arange(float(FRAMES))[:, None, None]
    x, y = at - VELOCITY[0] * t, at[:, None] - VELOCITY[1] * t
    pattern = 0.5 + 0.25 * torch.sin(0.31 * x + 0.17 * y) + 0.15 * torch.cos(0.23 * y - 0.2 * x)
    return pattern[None, :, None]


def model(**changes: Any) -> Any:
    merged = dict(SETTINGS)
    for name, value in changes.items():
        merged[name] = merged[name] | value
    torch.manual_seed(0)
    return build(parse(merged))


def given(frames: torch.Tensor, ticks: torch.Tensor, seen: list[int]) -> Conditioning:
    return Conditioning(frames[:, seen], ticks[:, seen])


@torch.no_grad()
@pytest.mark.parametrize("seen", [[0, FRAMES - 1], [0, 3, FRAMES - 1]])
def test_observed_frame_is_shown_as_it_was_whatever_the_state(seen):
    sde = factories.shake(model()).eval().model
    frames, ticks = film(), frame_ticks(FRAMES)[None]
    shown = sde.generate(ticks, SamplerConfig(), given(frames, ticks, seen)).frames
    torch.testing.assert_close(shown[:, seen], frames[:, seen], atol=1e-5, rtol=0)
    assert (shown[:, 1] - frames[:, 1]).abs().max() > 1e-2


@torch.no_grad()
def test_before_training_even_motion_is_followed_better_than_by_a_blend():
    sde, frames, ticks = model().model.eval(), film(), frame_ticks(FRAMES)[None]
    sampler, ends = SamplerConfig(temperature=0.0), [0, FRAMES - 1]
    between = sde.generate(ticks, sampler, given(frames, ticks, ends)).frames[:, 1:-1]
    share = torch.linspace(0, 1, FRAMES)[1:-1].view(1, -1, 1, 1, 1)
    blend = torch.lerp(frames[:, :1], frames[:, -1:], share)
    inner = (..., slice(6, -6), slice(6, -6))
    error, worse = ((x - frames[:, 1:-1])[inner].abs().mean() for x in (between, blend))
    assert error < 0.75 * worse


@torch.no_grad()
def test_prior_knows_nothing_of_frames_that_were_not_observed():
    objective = factories.shake(model()).eval()
    video = (film().permute(0, 1, 3, 4, 2) * 255).to(torch.uint8)
    other = video.clone()
    other[:, 1:-1] = 255 - other[:, 1:-1]
    ticks, serial = frame_ticks(FRAMES)[None], torch.zeros(1, dtype=torch.int64)
    first, second = (objective.encode(Clips(each, ticks, serial)) for each in (video, other))
    torch.testing.assert_close(first.context.summary, second.context.summary)
    gaps = (each.context.last.at(ticks).gap for each in (first, second))
    torch.testing.assert_close(*gaps)
    ends = first.future.seen
    torch.testing.assert_close(first.future.tokens[ends], second.future.tokens[ends])
    assert not first.tokens.equal(second.tokens)  # the posterior does


def test_motion_since_the_observed_frame_before_is_all_of_it():
    seen = torch.tensor([[True, False, False, True, False, True]])
    motion = motion_between(Motion((CELLS, CELLS)), film(), seen)
    want = torch.tensor(VELOCITY) * torch.tensor([[0.0], [0], [0], [3], [0], [2]])
    torch.testing.assert_close(motion[0].mean((2, 3)), want, atol=0.35, rtol=0)


def test_gap_around_times_before_in_and_after_the_observed_frames():
    pictures = torch.arange(4.0).view(1, 4, 1, 1, 1)
    seen = torch.tensor([[False, True, True, False]])
    frames = Keyframes((pictures,), seen, 100 * torch.arange(4)[None], torch.ones(1, 4, 2, 1, 1))
    gap = frames.around(torch.tensor([[50, 100, 125, 200, 250]]))
    assert gap.is_closed.flatten().tolist() == [False, True, True, True, False]
    assert gap.share.flatten().tolist() == [0, 0, 0.25, 0, 0]
    assert gap.before[0].flatten().tolist() == [0, 1, 1, 2, 2]
    assert gap.after[0].flatten().tolist() == [0, 1, 2, 2, 0]
    assert gap.motion[:, 0].flatten().tolist() == [0, 1, 1, 1, 0]
    assert gap.freedom().flatten().tolist() == [1, 0, pytest.approx(0.75**0.5), 0, 1]


def test_every_parameter_learns():
    shares = {"ends_fraction": 0.5, "free_fraction": 0.25}
    objective = factories.shake(model(observation=shares))
    video = (film().expand(16, -1, -1, -1, -1).permute(0, 1, 3, 4, 2) * 255).to(torch.uint8)
    terms = objective(video, frame_ticks(FRAMES).expand(16, -1), torch.arange(16), kl_weight=1.0)
    terms["loss"].backward()
    named = objective.named_parameters()
    still = [n for n, p in named if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []

"""A frame carried along a displacement, and the motion that starts it."""

from typing import Any

import factories
import pytest
import torch

from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.models.sampling import Conditioning, SamplerConfig
from sdevid.models.transport import Motion, Transport
from sdevid.objectives import build
from sdevid.types import frame_ticks

SIDE, CELLS, FRAMES, CONTEXT = 32, 4, 8, 4
VELOCITY = (1.25, -0.5)  # pixels a frame, x and y
SETTINGS = factories.settings(
    frame_size=SIDE,
    sequence_length=FRAMES,
    sde=factories.MAP | {"latent_size": 4, "order": 2},
    encoder={"map_size": CELLS, "causal": True, "transport": True},
    observation={"max_context": CONTEXT},
)


def film(velocity=VELOCITY, frames=FRAMES, dtype=torch.float32) -> torch.Tensor:
    """A smooth pattern that moves evenly, (1, frames, 1, side, side) in [0.1, 0.9]."""
    at = torch.arange(SIDE, dtype=dtype)
    t = torch.arange(frames, dtype=dtype)[:, None, None]
    x, y = at - velocity[0] * t, at[:, None] - velocity[1] * t
    pattern = 0.5 + 0.25 * torch.sin(0.31 * x + 0.17 * y) + 0.15 * torch.cos(0.23 * y - 0.2 * x)
    return pattern[None, :, None]


def uniform(x, y, dtype=torch.float32) -> torch.Tensor:
    return torch.tensor([x, y], dtype=dtype).view(1, 2, 1, 1).expand(1, 2, CELLS, CELLS)


def test_displacement_by_whole_pixels_is_a_shift():
    picture = torch.rand(1, 3, SIDE, SIDE)
    (moved,) = Transport()(uniform(3.0, -2.0), (picture,), SIDE)
    torch.testing.assert_close(moved[..., :-2, 3:], picture[..., 2:, :-3], atol=1e-5, rtol=0)


def test_no_displacement_is_the_identity():
    maps = torch.rand(2, 3, SIDE, SIDE), torch.rand(2, 5, SIDE // 4, SIDE // 4)
    for moved, still in zip(
        Transport()(torch.zeros(2, 2, CELLS, CELLS), maps, SIDE), maps, strict=True
    ):
        torch.testing.assert_close(moved, still, atol=1e-5, rtol=0)


def test_coarse_maps_move_as_far_as_the_frame():
    coarse = torch.rand(1, 2, SIDE // 4, SIDE // 4)
    (moved,) = Transport()(uniform(8.0, 4.0), (coarse,), SIDE)  # two and one of its pixels
    torch.testing.assert_close(moved[..., 1:, 2:], coarse[..., :-1, :-2], atol=1e-5, rtol=0)


def test_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    cells = torch.randn(2, 2, CELLS, CELLS, dtype=torch.float64, requires_grad=True)
    picture = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)

    def carried(cells, picture):
        return Transport()(0.37 * cells, (picture,), 8)[0]

    assert torch.autograd.gradcheck(carried, (cells, picture), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("interval", [1.0, 2.0])
def test_motion_is_the_films_a_unit_of_time(interval):
    times = interval * torch.arange(float(FRAMES))[None]
    motion = Motion((CELLS, CELLS))(film(), times)
    assert (motion[:, 0] == 0).all()
    want = torch.tensor(VELOCITY).view(2, 1, 1).expand(2, CELLS, CELLS) / interval
    # central differences read a wave of 0.62 rad a half-size pixel 6 % too flat
    torch.testing.assert_close(motion[0, -1], want, atol=0.1 / interval, rtol=0)


def test_motion_ignores_what_was_not_observed():
    torn = film()
    torn[..., 8:16, 8:20] = torch.nan
    motion = Motion((CELLS, CELLS))(torn, torch.arange(float(FRAMES))[None])
    assert motion.isfinite().all()
    torch.testing.assert_close(motion[0, -1].mean((1, 2)), torch.tensor(VELOCITY), atol=0.1, rtol=0)
    blank = torch.full_like(torn, torch.nan)
    assert (Motion((CELLS, CELLS))(blank, torch.arange(float(FRAMES))[None]) == 0).all()


def config(**changes: Any):
    merged = dict(SETTINGS)
    for name, value in changes.items():
        merged[name] = merged[name] | value if isinstance(value, dict) else value
    return parse(merged)


@torch.no_grad()
def test_before_training_the_model_extrapolates_the_motion():
    model = build(config()).model.eval()
    ticks, frames = frame_ticks(FRAMES)[None], film()
    given = Conditioning(frames[:, :CONTEXT], ticks[:, :CONTEXT])
    sampler = SamplerConfig(temperature=0.0)
    future = model.generate(ticks[:, CONTEXT:], sampler, given).frames
    inner = (..., slice(6, -6), slice(6, -6))
    error = (future - frames[:, CONTEXT:])[inner].square().mean().sqrt()
    still = (frames[:, CONTEXT - 1 : CONTEXT] - frames[:, CONTEXT:])[inner].square().mean().sqrt()
    assert error < still / 3


@torch.no_grad()
def test_chunks_have_no_seam_and_free_video_needs_no_frame():
    objective = build(config(encoder={"skip": True}))
    torch.manual_seed(0)
    model = factories.shake(objective).eval().model
    ticks = frame_ticks(FRAMES)[None]
    given = Conditioning(film()[:, :CONTEXT], ticks[:, :CONTEXT])
    whole = model.generate(ticks[:, CONTEXT:], SamplerConfig(), given).frames
    parts = [part.frames for part in model.chunks(ticks[:, CONTEXT:], SamplerConfig(), given, 2)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    free = model.generate(ticks, SamplerConfig()).frames
    assert free.isfinite().all()
    assert 0 <= free.min() <= free.max() <= 1


def test_every_parameter_learns():
    objective = build(config(encoder={"skip": True}, observation={"free_fraction": 0.5}))
    torch.manual_seed(0)
    factories.shake(objective)
    video = (film().expand(8, -1, -1, -1, -1).permute(0, 1, 3, 4, 2) * 255).to(torch.uint8)
    terms = objective(video, frame_ticks(FRAMES).expand(8, -1), torch.arange(8), kl_weight=1.0)
    terms["loss"].backward()
    named = objective.named_parameters()
    still = [n for n, p in named if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"sde": {"latent": "vector"}}, "sde.latent=map"),
        ({"sde": {"order": 1}}, "sde.order=2"),
        ({"sde": {"latent_size": 1}}, "sde.latent_size=2"),
        ({"encoder": {"causal": False}}, "encoder.causal=true"),
        ({"observation": {"keyframes_fraction": 0.2}}, "observation.keyframes_fraction=0"),
        ({"encoder": {"skip": True, "carried_layers": 2}}, "encoder.carried_layers=0"),
        ({"encoder": {"map_size": 32}}, "a smaller encoder.map_size"),
    ],
)
def test_what_does_not_fit_is_named_with_its_remedy(changes, rule):
    with pytest.raises(UserError, match=r"encoder\.transport is true, but") as refusal:
        config(**changes)
    assert rule in str(refusal.value)

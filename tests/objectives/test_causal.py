"""The causal posterior: a start that is the prior's own where a frame is seen, and one pass."""

from __future__ import annotations

import factories
import pytest
import torch

from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.objectives import build
from sdevid.objectives.clip_objective import Clips
from sdevid.objectives.history_objective import HistoryObjective
from sdevid.objectives.start import draw_start
from sdevid.types import frame_ticks

FRAMES = 5
SMALL = factories.settings(
    sequence_length=FRAMES,
    observation={"free_fraction": 0.3},
    encoder={"causal": True, "differences": True},
    birth={"steps": 4, "hidden": 16, "heads": 2, "depth": 1},
)
SDE = {"latent": "map", "latent_size": 3, "content_size": 2, "hidden": 16}


def objective(kind: str = "latent_sde", **sde: object) -> HistoryObjective:
    clip_objective = build(parse(SMALL | {"model_type": kind, "sde": SDE | sde}))
    torch.manual_seed(0)
    return factories.shake(clip_objective)


def clips(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    video = torch.randint(0, 256, (count, FRAMES, 16, 16, 1), dtype=torch.uint8)
    return video, frame_ticks(FRAMES).expand(count, -1), torch.arange(count)


@pytest.mark.parametrize("kind", ["latent_sde", "sde_matching"])
@pytest.mark.parametrize("start", ["gaussian", "birth"])
@torch.no_grad()
def test_start_divergence_is_zero_only_after_an_observed_frame(kind, start):
    clip_objective = objective(kind, start=start).eval()
    seen, free = (clip_objective.terms(*clips(4), context=count) for count in (2, 0))
    names = [name for name in free if name in ("kl_birth", "kl_initial", "kl_content")]
    assert all(float(seen[name].abs().max()) < 1e-5 for name in names)
    assert all(float(seen[name].abs().max()) == 0 for name in names if name == "kl_birth")
    assert bool((sum(free[name] for name in names) != 0).all())


@torch.no_grad()
def test_start_after_an_observed_frame_ignores_later_frames():
    clip_objective = objective()
    video, ticks, serial = clips(2)
    other = video.clone()
    other[:, 3:] = 255 - other[:, 3:]

    def states(video):
        encoded = clip_objective.encode(Clips(video, ticks, serial, context=3))
        start = draw_start(clip_objective.model, encoded, seed=0)
        return start.states[:, 0], clip_objective.path(encoded, start).states

    (first, path), (same, shifted) = states(video), states(other)
    torch.testing.assert_close(same, first)
    assert float((path - shifted)[:, 1].abs().max()) > 1e-4  # the control alone looks ahead


@pytest.mark.parametrize("kind", ["latent_sde", "sde_matching", "follmer"])
@pytest.mark.parametrize("start", ["gaussian", "birth"])
def test_every_parameter_learns(kind, start):
    clip_objective = objective(kind, start=start)
    clip_objective(*clips(16), kl_weight=1.0)["loss"].backward()
    still = [
        n
        for n, p in clip_objective.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert still == []


@torch.no_grad()
def test_observed_frames_in_one_pass_are_as_by_themselves():
    clip_objective = objective()
    video, ticks, serial = clips(2)
    whole = clip_objective.encode(Clips(video, ticks, serial, context=2)).context.summary
    short = Clips(video[:, :3], ticks[:, :3], serial, context=2)
    alone = clip_objective.encode(short).context.summary
    torch.testing.assert_close(whole, alone)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"sde": SDE | {"start_components": 2}}, "start_components"),
        ({"observation": {"max_context": 3, "ends_fraction": 0.3}}, r"encoder\.differences"),
        ({"observation": {"max_context": 3, "mean": 0.0}}, r"observation\.mean"),
    ],
)
def test_settings_that_do_not_go_together_are_named(settings, name):
    with pytest.raises(UserError, match=name):
        parse(SMALL | {"sde": SDE} | settings)


def test_decoder_starts_at_the_mean_of_the_data():
    plain, bright = (
        build(parse(SMALL | {"sde": SDE, "observation": {"max_context": 3, "mean": mean}})).model
        for mean in (0.7, 0.9)
    )
    z, w = torch.randn(2, 3, 3, 4, 4), torch.randn(2, 2)
    apart = bright.decoder(z, w).logit() - plain.decoder(z, w).logit()
    low, high = torch.tensor([0.7, 0.9]).logit().tolist()
    torch.testing.assert_close(apart, torch.full_like(apart, high - low), atol=1e-4, rtol=0)

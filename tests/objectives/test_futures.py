"""Scoring decoded futures of the prior: proper, from the prior's own start, of seen clips alone."""

from __future__ import annotations

from typing import Any

import factories
import pytest
import torch

from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.objectives import build, futures
from sdevid.objectives.clip_objective import Clips
from sdevid.objectives.history_objective import HistoryObjective
from sdevid.objectives.start import draw_start
from sdevid.types import frame_ticks

FRAMES = 5
SMALL = factories.settings(
    sequence_length=FRAMES,
    encoder={"causal": True},
    consistency={"futures": 2.0, "futures_frames": 2},
)
SDE = {"latent": "map", "latent_size": 3, "content_size": 2, "hidden": 16}


def objective(kind: str = "latent_sde", **sde: Any) -> HistoryObjective:
    clip_objective = build(parse(SMALL | {"model_type": kind, "sde": SDE | sde}))
    torch.manual_seed(0)
    return factories.shake(clip_objective)


def clips(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    video = torch.randint(0, 256, (count, FRAMES, 16, 16, 1), dtype=torch.uint8)
    return video, frame_ticks(FRAMES, 8.0).expand(count, -1), torch.arange(count)


def mean_score(made_scale: float) -> float:
    """Of frames of 4 values N(0, 1), by forecasts N(0, made_scale^2)."""
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(40_000, 1, 1, 2, 2, generator=generator)
    result = made_scale * torch.randn(40_000, 2, 1, 1, 2, 2, generator=generator)
    return float(futures.energy_score(result, real).mean())


def test_score_is_least_at_the_true_spread():
    scores = {scale: mean_score(scale) for scale in (0.0, 0.7, 1.0, 1.4)}
    assert min(scores, key=lambda scale: scores[scale]) == 1.0


def test_coarse_scales_tell_how_far_a_stroke_missed():
    """Lines that do not touch are equally far apart in pixels, and not in means over them."""
    real, near, far = (torch.zeros(1, 1, 1, 16, 16) for _ in range(3))
    real[..., 2], near[..., 4], far[..., 12] = 1.0, 1.0, 1.0
    rollouts = [torch.stack([line, line], dim=1) for line in (near, far)]
    plain = [float(futures.scale_score(each, real, 1)) for each in rollouts]
    several = [float(futures.scale_score(each, real, 4)) for each in rollouts]
    assert plain[0] == pytest.approx(plain[1])
    assert plain[0] == pytest.approx(float(futures.energy_score(rollouts[0], real)))
    assert several[0] < 0.9 * several[1]


@pytest.mark.parametrize("sde", [{}, {"start": "birth"}, {"order": 2}])
def test_futures_count_for_observed_clips_and_train_the_prior(sde):
    clip_objective = objective(**sde)
    assert float(clip_objective.terms(*clips(4), context=0)["futures"].detach().abs().max()) == 0
    seen = clip_objective.terms(*clips(4), context=2)["futures"]
    assert bool((seen > 0).all())
    seen.sum().backward()
    changed = {
        name.split(".")[1]
        for name, p in clip_objective.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert {"encoder", "temporal", "start_prior", "prior", "decoder"} <= changed
    assert not {"start_posterior", "control"} & changed


def test_loss_has_the_term_at_its_weight():
    clip_objective = objective().eval()
    means = clip_objective(*clips(4), kl_weight=1.0, context=2)
    plain = means["reconstruction"] - means["kl_path"] - means["kl_initial"] - means["kl_content"]
    torch.testing.assert_close(means["loss"], 2.0 * means["futures"] - plain)


@torch.no_grad()
def test_futures_begin_at_the_last_observed_frame():
    clip_objective = objective()
    encoded = clip_objective.encode(Clips(*clips(3), context=2))
    start = draw_start(clip_objective.model, encoded, seed=0)
    conditions = clip_objective.model.prior.conditions(start.content, encoded.context.summary)
    every, weight = futures.scored(clip_objective.config, encoded.serial)
    rolled = futures.roll(clip_objective.model, encoded, start, conditions, every)
    assert weight == 1
    assert rolled.shape == (3, 2, 3, 1, 16, 16)  # the last seen frame and two after it
    assert float((rolled[:, 0] - rolled[:, 1]).abs().max()) > 1e-4


def test_drawn_frames_weigh_as_many_as_the_future_has():
    consistency = {"futures": 1.0, "futures_frames": 6, "futures_scored": 3}
    config = parse(SMALL | {"sde": SDE, "sequence_length": 7, "consistency": consistency})
    chosen, weight = futures.scored(config, torch.arange(4000))
    counts = torch.bincount(chosen.flatten(), minlength=7)
    assert counts[0] == 0
    assert weight == 2
    assert bool((weight * counts[1:] / 4000 - 1).abs().max() < 5 * (1 / 4000) ** 0.5)  # 5 sd


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"consistency": {"futures": 1.0, "futures_scored": 9}}, r"consistency\.futures_scored"),
        ({"encoder": SMALL["encoder"] | {"causal": False}}, r"encoder\.causal is false"),
        ({"consistency": {"futures": 1.0, "futures_frames": 5}}, r"consistency\.futures_frames"),
        ({"model_type": "follmer"}, r"consistency\.futures"),
    ],
)
def test_futures_that_cannot_be_name_the_setting(settings, name):
    with pytest.raises(UserError, match=name):
        parse(SMALL | {"sde": SDE} | settings)

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
    rolled = futures.roll(clip_objective.model, encoded, start, conditions)
    assert rolled.shape == (3, 2, 3, 1, 16, 16)  # the last seen frame and two after it
    assert float((rolled[:, 0] - rolled[:, 1]).abs().max()) > 1e-4


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"encoder": SMALL["encoder"] | {"causal": False}}, r"encoder\.causal is false"),
        ({"consistency": {"futures": 1.0, "futures_frames": 5}}, r"consistency\.futures_frames"),
        ({"model_type": "follmer"}, r"consistency\.futures"),
    ],
)
def test_futures_that_cannot_be_name_the_setting(settings, name):
    with pytest.raises(UserError, match=name):
        parse(SMALL | {"sde": SDE} | settings)

"""Importance weights: their mean is the bound, and more draws tighten it."""

import math

import factories
import pytest
import torch

from sdevid import objectives
from sdevid.config import parse
from sdevid.objectives.importance import bound, log_weight
from sdevid.types import frame_ticks

SMALL = factories.settings(
    sde={
        "latent_size": 3,
        "content_size": 4,
        "hidden": 16,
        "steps_per_frame": 2,
        "start_components": 3,
    },
    observation={"max_context": 5},
)
DRAWS, CLIPS = 128, 4


@pytest.fixture(scope="module", params=["order 1", "order 2", "matching", "matching, slope"])
def weights_and_terms(request):
    torch.manual_seed(0)
    settings = SMALL | {"sde": SMALL["sde"] | {"order": 2 if request.param == "order 2" else 1}}
    if "matching" in request.param:
        slope = "network" if "slope" in request.param else "zero"
        settings |= {"model_type": "sde_matching", "matching": {"drift_slope": slope}}
    objective = objectives.build(parse(settings)).eval()
    for weight in objective.parameters():  # away from zero starts: a control that does something
        torch.nn.init.normal_(weight, std=0.15) if weight.dim() > 1 else None
    video = torch.randint(0, 255, (CLIPS, 6, 16, 16, 1), dtype=torch.uint8)
    draws = torch.arange(CLIPS) * DRAWS + torch.arange(DRAWS)[:, None]
    batch = (
        video.repeat(DRAWS, 1, 1, 1, 1),
        frame_ticks(6).repeat(CLIPS * DRAWS, 1),
        draws.flatten(),
    )
    weights = log_weight(objective, *batch)
    terms = objective.terms(*batch, context=0)["elbo"].detach()
    return weights.view(DRAWS, CLIPS).double(), terms.view(DRAWS, CLIPS).double()


def test_mean_of_log_weights_is_the_bound(weights_and_terms):
    weights, terms = weights_and_terms
    apart = weights - terms
    error = apart.std(0) / math.sqrt(DRAWS)
    assert (apart.mean(0).abs() < 4 * error).all()
    assert weights.std(0).mean() > 0.3  # the weights do differ


def test_more_draws_tighten_the_bound(weights_and_terms):
    weights, _ = weights_and_terms
    loose, tight = weights.mean(0), bound(weights)
    pairs = bound(weights.reshape(2, DRAWS // 2, CLIPS)).mean(0)
    assert (loose < pairs).all()
    assert (pairs < tight).all()


def test_bound_of_equal_weights_is_their_value():
    torch.testing.assert_close(bound(torch.full((8, 3), -5.0)), torch.full((3,), -5.0))

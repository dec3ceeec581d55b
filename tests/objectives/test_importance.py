"""Importance weights: their mean is the bound, and more draws tighten it."""

import math

import pytest
import torch

from sdevid import objectives
from sdevid.config import parse
from sdevid.objectives.importance import _path_log_ratio, bound, log_weight
from sdevid.sde.problem import Step
from sdevid.types import frame_ticks

SMALL = {
    "frame_size": 16,
    "channels": 1,
    "sequence_length": 6,
    "sde": {
        "latent_size": 3,
        "content_size": 4,
        "hidden": 16,
        "steps_per_frame": 2,
        "start_components": 3,
    },
    "encoder": {"channels": 8, "features": 16, "layers": 1, "heads": 2, "map_size": 4},
    "text": {"encoder": "none"},
}
DRAWS, CLIPS = 256, 4


@pytest.fixture(scope="module", params=[1, 2], ids=["order 1", "order 2"])
def weights_and_terms(request):
    torch.manual_seed(0)
    settings = SMALL | {"sde": SMALL["sde"] | {"order": request.param}}
    objective = objectives.build(parse(settings)).eval()
    for weight in objective.parameters():  # away from zero starts: a control that does something
        torch.nn.init.normal_(weight, std=0.15) if weight.dim() > 1 else None
    video = torch.randint(0, 255, (CLIPS, 6, 16, 16, 1), dtype=torch.uint8)
    ticks = frame_ticks(6).repeat(CLIPS, 1)
    serial = torch.arange(CLIPS)
    weights, terms = [], []
    for k in range(DRAWS):
        draw = serial * DRAWS + k
        weights.append(log_weight(objective, video, ticks, draw))
        terms.append(objective.terms(video, ticks, draw, context=0)["elbo"].detach())
    return torch.stack(weights).double(), torch.stack(terms).double()


def test_the_mean_of_log_weights_is_the_bound(weights_and_terms):
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


def test_one_gaussian_step_has_the_ratio_of_its_densities():
    """p = N(h d, g^2 d) over q = N((h + g u) d, r^2 g^2 d), at a draw of q."""
    d, h, g, u, r, eps = 0.1, 0.7, 0.8, 1.9, 0.6, -0.4
    z = (h + g * u) * d + r * g * math.sqrt(d) * eps
    p = torch.distributions.Normal(h * d, g * math.sqrt(d))
    q = torch.distributions.Normal((h + g * u) * d, r * g * math.sqrt(d))
    want = p.log_prob(torch.tensor(z)) - q.log_prob(torch.tensor(z))
    one = [torch.full((1, 1), value) for value in (h, g, u, r)]
    dw = torch.full((1, 1, 1), math.sqrt(d) * eps)
    got = _path_log_ratio([Step(*one)], dw, torch.full((1, 1), d))
    torch.testing.assert_close(got[0], want, rtol=1e-5, atol=1e-6)
    none = _path_log_ratio([Step(*one)], torch.zeros(1, 1, 1), torch.zeros(1, 1))
    assert none.item() == 0  # a step between equal ticks


def test_bound_of_equal_weights_is_their_value():
    torch.testing.assert_close(bound(torch.full((8, 3), -5.0)), torch.full((3,), -5.0))

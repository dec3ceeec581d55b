"""Terms on the prior: rolled on over frames, and halved steps."""

import math

import factories
import pytest
import torch

from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.objectives import build, prior_consistency
from sdevid.objectives.prior_consistency import Rolled
from sdevid.objectives.window import Window
from sdevid.types import TICKS_PER_UNIT, frame_ticks

SMALL = factories.settings(
    fps=8, consistency={"prior_consistency": 1.0, "step_halving": 1.0, "prior_frames": 3}
)
VECTOR = {"latent_size": 1, "content_size": 2, "hidden": 16, "steps_per_frame": 2}
VECTOR |= {"diffusion_start": 0.5}
KINDS = {
    "latent_sde": {"sde": VECTOR},
    "latent_sde map": {"sde": VECTOR | {"latent": "map"}},
    "latent_sde ahead": {
        "sde": VECTOR | {"noise": "diagonal"},
        "observation": {"max_context": 3, "keyframes_fraction": 0.5},
    },
    "second order": {"sde": VECTOR | {"order": 2}},
    "sde_matching": {"model_type": "sde_matching", "sde": VECTOR},
}
CLIPS, FRAMES = 4000, 6


def objective(kind="latent_sde", shake=0.05):
    torch.manual_seed(0)
    clip_objective = build(parse(SMALL | KINDS[kind]))
    return factories.shake(clip_objective, shake)


def still(model, states):
    """Rolled states of a prior without drift, and g = 0.5 everywhere."""
    count = len(states)
    place = torch.arange(FRAMES).expand(count, -1)
    window = Window(place, torch.ones(count, FRAMES, dtype=torch.bool), place[:, :1])
    conditions = model.prior.conditions(torch.zeros(count, 2), torch.zeros(count, 1, 16))
    ticks = frame_ticks(FRAMES).expand(count, -1)
    return Rolled(states, ticks, window, conditions, None, torch.arange(count))


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns_and_a_clip_stands_for_itself(kind):
    clip_objective = objective(kind)
    torch.manual_seed(1)
    video = torch.randint(0, 256, (12, 6, 16, 16, 1), dtype=torch.uint8)
    ticks, serial = frame_ticks(6).expand(12, -1), torch.arange(12)
    together = clip_objective.terms(video, ticks, serial)
    alone = clip_objective.terms(video[3:4], ticks[3:4], serial[3:4])
    for name in ("prior_consistency", "step_halving"):
        torch.testing.assert_close(alone[name][0], together[name][3], rtol=1e-4, atol=1e-5)
    clip_objective(video, ticks, serial, 1.0)["loss"].backward()
    at_rest = [
        n for n, p in clip_objective.named_parameters() if p.grad is None or not p.grad.any()
    ]
    assert at_rest == []


@torch.no_grad()
def test_score_of_a_prior_that_is_right_is_the_least():
    """Brownian motion: E of the score at spread s against truth t is in closed form."""
    torch.manual_seed(0)
    model = objective(shake=0.0).model
    truth = 0.5
    moves = truth * torch.randn(CLIPS, FRAMES - 1, 1)
    states = torch.cat([torch.zeros(CLIPS, 1, 1), moves.cumsum(1)], dim=1)

    def score(g):
        rolled = still(model, states)
        right = rolled._replace(
            conditions=rolled.conditions._replace(diffusion=torch.full((CLIPS, 1), g))
        )
        return prior_consistency.over_frames(model, right)

    def expected(g):  # E|N(0, v)| = sqrt(2 v / pi), three frames
        root = math.sqrt(2 / math.pi * 3)
        return root * (math.sqrt(g**2 + truth**2) - 0.5 * math.sqrt(2) * g)

    for g in (0.1, 0.5, 1.0):
        result = score(g)
        assert abs(result.mean() - expected(g)) < 4 * result.std() / CLIPS**0.5 + 1e-3
    assert expected(0.5) < expected(0.1)
    assert expected(0.5) < expected(1.0)


@torch.no_grad()
def test_halving_a_step_of_linear_drift_errs_as_taylor_says():
    """h = -k z: whole - halves = -k d / 2 (k z d / 2 - g dW_1), in units of g^2 d."""
    torch.manual_seed(0)
    model = objective(shake=0.0).model
    k, d, z = 0.25, model.cell / TICKS_PER_UNIT, 0.7
    model.prior.drift.forward = lambda x, _: -k * x
    result = prior_consistency.step_halving(model, still(model, torch.full((CLIPS, FRAMES, 1), z)))
    g = 0.5
    want = (k * d / 2) ** 2 * ((k * z * d / 2) ** 2 + g**2 * d / 2) / (g**2 * d)
    assert abs(result.mean() - want) < 4 * result.std() / CLIPS**0.5
    model.prior.drift.forward = lambda x, _: 0 * x
    result = prior_consistency.step_halving(model, still(model, torch.full((8, FRAMES, 1), z)))
    torch.testing.assert_close(result, torch.zeros(8), rtol=0, atol=1e-10)


def test_settings_that_do_not_fit_are_told():
    with pytest.raises(UserError, match="has no prior SDE"):
        parse(SMALL | {"model_type": "follmer"})
    with pytest.raises(UserError, match="prior_frames is 6"):
        parse(SMALL | {"consistency": {"prior_consistency": 1, "prior_frames": 6}})

"""The backbone solved as one operator is the backbone solved step by step."""

import itertools
from pathlib import Path

import pytest
import torch
from sdevid_kernels.em_trajectory import em_trajectory
from torch import nn

from sdevid import objectives
from sdevid.config import SDEConfig, load
from sdevid.models import trajectory
from sdevid.models.backbone import Control, Prior, StateNetwork
from sdevid.models.latent_sde import LatentSDE
from sdevid.sde.problem import Step
from sdevid.sde.stepwise import chain
from sdevid.types import TICKS_PER_UNIT, frame_ticks

DEMO = Path(__file__).resolve().parents[2] / "configs/demo.yaml"
BATCH, STEPS, CELL = 4, 3, 4800
CHOICES = [
    (noise, width, drift, depth, noise == "diagonal" and drift == "own")
    for noise, width, drift, depth in itertools.product(
        ("additive", "diagonal"), ("chain", "continuous"), ("control", "own"), (1, 3)
    )
]


def backbone(noise, width, drift, depth, stratonovich):
    torch.manual_seed(0)
    config = SDEConfig(
        latent_size=3,
        content_size=2,
        hidden=8,
        depth=depth,
        noise=noise,
        posterior_width=width,
        posterior_drift=drift,
        control_bound=2.0,
    )
    prior, control = Prior(config, 4, stratonovich=stratonovich), Control(config, 4)
    for parameter in [*prior.parameters(), *control.parameters()]:
        parameter.data = 0.4 * torch.randn_like(parameter)
    return prior, control


@pytest.mark.parametrize(
    ("settings", "name", "message"),
    [
        ({}, "fused", "the chain's bound"),
        ({"sde.kernels": "reference"}, "stepwise", "not fused: kernels is reference"),
        ({"sde.latent": "map"}, "stepwise", "not fused: the state is a map"),
        ({"zero_stage": "3"}, "stepwise", "not fused: ZeRO 3 gathers weights"),
        ({"sde.order": 2}, "stepwise", "not fused: the state is of second order"),
        ({"observation.ends_fraction": 0.5}, "stepwise", "frames ahead make the drift"),
    ],
    ids=str,
)
def test_run_tells_which_solver_and_why_not_the_others(settings, name, message):
    config = load(DEMO, [f"{key}={value}" for key, value in settings.items()])
    choice = trajectory.training_choice(config, torch.device("cpu"), 2)
    assert name == choice.solver.NAME
    assert message in str(choice)


class ThirdBackbone(nn.Module):
    """A drift that no fused solver knows."""

    def __init__(self, like: StateNetwork) -> None:
        super().__init__()
        self.inner = like

    def forward(self, z, condition):
        return torch.sin(self.inner(z, condition))


def test_third_backbone_falls_back_and_trains():
    config = load(DEMO, ["sequence_length=4", "observation.max_context=2"])
    objective = objectives.build(config)
    for parameter in objective.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    prior = objective.model.prior
    prior.drift = ThirdBackbone(prior.drift)
    known = torch.zeros(1, config.sde.content_size), torch.zeros(1, 1, config.encoder.features)
    form = trajectory.Drive(prior, prior.conditions(*known)).silu()
    assert form == "of the drift: ThirdBackbone does not give its weights as layers of SiLU"
    video = torch.randint(0, 256, (2, 4, 32, 32, 1), dtype=torch.uint8)
    ticks = frame_ticks(4).expand(2, -1)
    loss = objective(video, ticks, torch.arange(2), 1.0)["loss"]
    loss.backward()
    assert prior.drift.inner.last.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("noise", ["additive", "diagonal"])
def test_same_seed_samples_the_same_video_by_every_solver(noise):
    videos = []
    for kernels in ("auto", "reference"):
        torch.manual_seed(0)
        result = LatentSDE(load(DEMO, [f"sde.kernels={kernels}", f"sde.noise={noise}"]))
        for parameter in result.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        ticks = frame_ticks(5).expand(3, -1)
        videos.append(result.sample(ticks, seed=1, serial=torch.arange(3)))
    torch.testing.assert_close(*videos, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("setting", ["auto", "reference"])
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_operator_is_the_backbones_chain(choice, setting):
    prior, control = backbone(*choice)
    start = torch.randn(BATCH, 3, requires_grad=True)
    seen = torch.randn(BATCH, STEPS, 1, 4)
    dw = 0.5 * torch.randn(BATCH, STEPS, 3)
    ticks = (torch.arange(STEPS + 1) * CELL).repeat(BATCH, 1)
    ticks[0, -1] = ticks[0, -2]
    conditions = prior.conditions(torch.randn(BATCH, 2), torch.randn(BATCH, 1, 4))
    controls = control.conditions(seen, None)

    def coefficients(z, k):
        h, g = prior(z, conditions)
        return Step(h, g, *control(z, controls[k], h, g))

    path = chain(start, ticks, dw, coefficients, "reference")
    result = em_trajectory(
        start,
        *trajectory.Drive(prior, conditions, (control, controls)).silu(),
        ticks.diff(dim=1).t() / TICKS_PER_UNIT,
        dw.transpose(0, 1),
        setting=setting,
    )
    leaves = [start, *prior.parameters(), *control.parameters()]
    results = []
    for states, kl in (
        (result.states.transpose(0, 1), result.energy + result.width_kl),
        (path.states, path.kl),
    ):
        loss = states.square().sum() + (kl * torch.arange(1.0, BATCH + 1)).sum()
        results.append([states, kl, *torch.autograd.grad(loss, leaves, retain_graph=True)])
    torch.testing.assert_close(*results, rtol=2e-4, atol=2e-5)

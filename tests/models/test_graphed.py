"""A map's solve by a graph is its solve step by step."""

import gc
from pathlib import Path

import pytest
import torch

from sdevid import objectives
from sdevid.config import load
from sdevid.models import graphed
from sdevid.types import frame_ticks

DEMO = Path(__file__).resolve().parents[2] / "configs/demo.yaml"
SMALL = ["sde.latent=map", "sde.latent_size=2", "sde.hidden=8", "sequence_length=4"]
SMALL += ["observation.max_context=2"]


def _steps(device: str, capture: bool, noise: str, steps: int = 3) -> list[torch.Tensor]:
    """Loss and gradients of a few training steps, each on other clips, and where they led."""
    config = load(DEMO, [*SMALL, f"sde.capture={capture}", f"sde.noise={noise}"])
    assert graphed.takes(config) == capture
    torch.manual_seed(0)
    objective = objectives.build(config).to(device)
    parameters = list(objective.parameters())
    for parameter in parameters:
        parameter.data += 0.05 * torch.randn(parameter.shape).to(device)
    ticks = frame_ticks(4, config.fps).expand(3, -1).to(device)
    seen = []
    for step in range(steps):
        torch.manual_seed(step)
        video = torch.randint(0, 256, (3, 4, 32, 32, 1), dtype=torch.uint8).to(device)
        serial = torch.arange(3, device=device) + 3 * step
        loss = objective(video, ticks, serial, 1.0)["loss"]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        seen.append(loss.detach().clone())
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter -= 1e-6 * gradient  # where it lies: a graph reads it there
    return [*seen, *(parameter.detach() for parameter in parameters)]


def _check(device: str, noise: str) -> None:
    want, got = (_steps(device, capture, noise) for capture in (False, True))
    torch.testing.assert_close(got, want, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("noise", ["additive", "diagonal"])
def test_the_graphs_solve_is_the_chain(noise):
    _check("cpu", noise)


@pytest.mark.gpu
@pytest.mark.parametrize("noise", ["additive", "diagonal"])
def test_a_replayed_solve_trains_as_the_chain_does(noise):
    _check("cuda", noise)


def test_what_is_kept_for_a_model_goes_with_it():
    before = len(graphed._GRAPHS)
    _steps("cpu", True, "additive", steps=1)
    gc.collect()
    assert len(graphed._GRAPHS) <= before

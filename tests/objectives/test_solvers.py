"""Training by every solver and gradient that the settings name."""

import typing

import factories
import pytest
import torch

from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.models.trajectory import training_choice
from sdevid.objectives import build
from sdevid.sde import solvers, torchsde_bridge
from sdevid.settings.sde import Scheme
from sdevid.types import frame_ticks

SMALL = factories.settings(
    frame_size=8,
    sequence_length=5,
    observation={"max_context": 2},
    encoder={"channels": 4, "features": 8},
)
SDE = {"latent_size": 2, "content_size": 2, "hidden": 8, "depth": 1, "steps_per_frame": 2}
OTHERS = [name for name in typing.get_args(Scheme) if name != "euler_maruyama"]


def config(**sde):
    return parse(SMALL | {"sde": SDE | sde})


def loss_and_gradients(**sde):
    """Of clips whose windows begin at different frames."""
    torch.manual_seed(0)
    objective = build(config(**sde))
    for parameter in objective.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    video = torch.randint(0, 256, (6, 5, 8, 8, 1), dtype=torch.uint8)
    loss = objective(video, frame_ticks(5).expand(6, -1), torch.arange(6), 1.0)["loss"]
    parameters = list(objective.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert gradients[-1] is not None
    return [loss.detach(), *(x for x in gradients if x is not None)]


def test_setting_names_every_scheme():
    assert typing.get_args(Scheme) == (*solvers.SOLVERS, *torchsde_bridge.SCHEMES)


@pytest.mark.parametrize("solver", OTHERS)
def test_training_by_another_scheme_is_near_the_chain(solver):
    noise = "additive" if solver == "srk" else "diagonal"
    chain = loss_and_gradients(posterior_width="continuous", noise=noise)
    other = loss_and_gradients(posterior_width="continuous", noise=noise, solver=solver)
    assert other[0] == pytest.approx(float(chain[0]), rel=0.05)
    pairs = zip(chain, other, strict=True)
    same = all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)
    assert same == (solver == "torchsde/euler")
    assert all(x.isfinite().all() for x in other)


def test_torchsde_trains_on_the_loss_of_our_own_scheme():
    torch.testing.assert_close(
        loss_and_gradients(solver="torchsde/heun"),
        loss_and_gradients(solver="heun"),
        rtol=1e-3,
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("solver", "gradient", "bound"),
    [
        ("euler_maruyama", "checkpoint", 1e-4),
        ("heun", "checkpoint", 1e-4),
        ("reversible_heun", "reversible", 1e-3),
        ("torchsde/reversible_heun", "reversible", 1e-3),
    ],
)
def test_gradient_in_less_memory_is_that_of_backpropagation(solver, gradient, bound):
    want, got = (loss_and_gradients(solver=solver, gradient=g) for g in ("backprop", gradient))
    torch.testing.assert_close(got, want, rtol=bound, atol=10 * bound)


def test_startup_tells_scheme_bound_and_gradient():
    settings = config(solver="reversible_heun", gradient="reversible")
    summary = str(training_choice(settings, torch.device("cpu"), 2))
    assert "reversible_heun of strong order 1, Girsanov's bound, gradient reversible" in summary


@pytest.mark.parametrize(
    ("sde", "more", "message"),
    [
        ({"solver": "heun", "order": 2}, {}, "sde.order 2 has no noise on its positions"),
        ({"solver": "srk", "noise": "diagonal"}, {}, "does not take the model's noise"),
        ({"gradient": "reversible"}, {}, "set solver=reversible_heun"),
        ({"solver": "torchsde/srk", "gradient": "checkpoint"}, {}, "torchsde keeps every step"),
        (
            {"solver": "reversible_heun", "gradient": "reversible"},
            {"zero_stage": 3},
            "zero_stage is 3",
        ),
        (
            {"solver": "reversible_heun", "gradient": "reversible"},
            {"observation": {"max_context": 2, "ends_fraction": 0.1}},
            "ends_fraction",
        ),
        ({"solver": "heun"}, {"model_type": "follmer"}, "follmer takes euler_maruyama alone"),
        ({"solver": "rk4"}, {}, "sde.solver is"),
    ],
    ids=str,
)
def test_setting_that_cannot_be_solved_is_refused(sde, more, message):
    with pytest.raises(UserError, match=message):
        parse(SMALL | {"sde": SDE | sde} | more)

import math

import factories
import pytest
import torch

from sdevid.config import parse
from sdevid.objectives import build
from sdevid.types import frame_ticks

SMALL = factories.settings()
VECTOR = factories.VECTOR
KINDS = {
    "vector": {"sde": VECTOR},
    "map": {"sde": VECTOR | {"latent": "map"}},
    "diagonal": {"sde": VECTOR | {"noise": "diagonal"}},
    "mixture": {"sde": VECTOR | {"start_components": 3}},
    "mixture map": {"sde": VECTOR | {"start_components": 3, "latent": "map"}},
    "own drift": {"sde": VECTOR | {"posterior_drift": "own"}},
    "own drift map": {"sde": VECTOR | {"posterior_drift": "own", "latent": "map"}},
    "continuous": {"sde": VECTOR | {"posterior_width": "continuous"}},
    "stratonovich": {
        "sde": VECTOR | {"noise": "diagonal", "posterior_drift": "own"},
        "sde_type": "stratonovich",
    },
    "second order": {"sde": VECTOR | {"order": 2}},
    "second order map": {"sde": VECTOR | {"order": 2, "latent": "map", "noise": "diagonal"}},
    "warp": {"sde": VECTOR, "consistency": {"warp": True, "frame_difference": 0.5}},
    "warp map": {"sde": VECTOR | {"latent": "map"}, "consistency": {"warp": True}},
}


def objective(kind, shake=0.05):
    torch.manual_seed(0)
    clip_objective = build(parse(SMALL | KINDS[kind]))
    return factories.shake(clip_objective, shake)


def clips(count):
    video = torch.randint(0, 256, (count, 6, 16, 16, 1), dtype=torch.uint8)
    return video, frame_ticks(6).expand(count, -1), torch.arange(count)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns(kind):
    clip_objective = objective(kind)
    clip_objective(*clips(16), kl_weight=1.0)["loss"].backward()
    still = [
        n
        for n, p in clip_objective.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert still == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", [None, 0, 3])
def test_clips_bound_does_not_depend_on_its_batch(kind, context):
    clip_objective = objective(kind)
    video, ticks, serial = clips(5)
    together = clip_objective.terms(video, ticks, serial, context)
    alone = clip_objective.terms(video[3:4], ticks[3:4], serial[3:4], context)
    for name, value in alone.items():
        if name != "diffusion":
            torch.testing.assert_close(value[0], together[name][3], rtol=1e-4, atol=1e-3, msg=name)


def test_loss_is_the_bound_at_weight_1_reconstruction_at_0():
    clip_objective = objective("vector")
    terms = clip_objective(*clips(4), kl_weight=1.0)
    torch.testing.assert_close(terms["loss"], -terms["elbo"])
    parts = terms["kl_path"] + terms["kl_initial"] + terms["kl_content"]
    torch.testing.assert_close(terms["elbo"], terms["reconstruction"] - parts)
    at_zero = clip_objective(*clips(4), kl_weight=0.0)
    torch.testing.assert_close(at_zero["loss"], -at_zero["reconstruction"])


def test_path_kl_at_initialisation_is_its_widths_alone():
    torch.manual_seed(0)
    clip_objective = build(parse(SMALL | KINDS["vector"]))
    terms = clip_objective.terms(*clips(4), context=0)
    r, steps = 1 / (1 + math.exp(-3.0)), 5 * 2 * 3  # g is its unit
    each = 0.5 * (r**2 - 1) - math.log(r)
    torch.testing.assert_close(terms["kl_path"], torch.full((4,), steps * each))
    assert terms["control_energy"].abs().max() == 0


def test_context_moves_the_start_and_shortens_what_is_predicted():
    clip_objective = objective("vector")
    video, ticks, serial = clips(3)
    later = clip_objective.terms(video[:, 2:], ticks[:, 2:], serial, context=1)
    within = clip_objective.terms(video, ticks, serial, context=3)
    per_frame = later["reconstruction"] / 4
    assert ((within["reconstruction"] / 4 - per_frame).abs() < 0.2 * per_frame.abs()).all()


def test_posterior_of_own_drift_does_not_move_with_the_prior():
    clip_objective = objective("own drift", shake=0.02)
    video, ticks, serial = clips(4)
    before = clip_objective.terms(video, ticks, serial, context=0)
    clip_objective.model.prior.drift.last.bias.data += 0.0125  # a frame
    after = clip_objective.terms(video, ticks, serial, context=0)
    torch.testing.assert_close(
        after["reconstruction"], before["reconstruction"], rtol=1e-4, atol=0.0
    )
    assert ((after["kl_path"] - before["kl_path"]).abs() > 1e-3).all()


SOLVES = [("vector", "triton"), ("own drift", "triton"), ("map", "triton")]
SOLVES += [
    (kind, "auto") for kind in ("vector", "own drift", "diagonal", "continuous", "stratonovich")
]


@pytest.mark.parametrize(("kind", "setting"), SOLVES)
def test_bound_and_gradients_of_every_solver_are_the_loops(kind, setting):
    results = {}
    for kernels in ("reference", setting):
        torch.manual_seed(0)
        sde = KINDS[kind]["sde"] | {"kernels": kernels}
        clip_objective = build(parse(SMALL | KINDS[kind] | {"sde": sde}))
        for parameter in clip_objective.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        torch.manual_seed(1)
        terms = clip_objective(*clips(2), kl_weight=1.0)
        terms["loss"].backward()
        model = clip_objective.model
        gradients = [p.grad for part in (model.control, model.prior) for p in part.parameters()]
        results[kernels] = torch.cat([g.flatten() for g in gradients]), terms
    (want, reference), (got, solved) = results["reference"], results[setting]
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))
    for name in ("elbo", "kl_path", "control_energy", "g_q05", "g_q95"):
        torch.testing.assert_close(solved[name], reference[name], rtol=1e-4, atol=1e-4)

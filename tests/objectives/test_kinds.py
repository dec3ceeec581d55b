"""The objectives that simulate nothing: what they learn, draw and leave alone."""

import factories
import pytest
import torch

from sdevid.config import parse
from sdevid.models.sampling import SamplerConfig
from sdevid.objectives import build
from sdevid.sde import solve
from sdevid.types import frame_ticks

SMALL = factories.settings()
VECTOR = factories.VECTOR
MAP = factories.MAP
KINDS = {
    "matching": {"model_type": "sde_matching", "sde": VECTOR},
    "matching map": {"model_type": "sde_matching", "sde": MAP},
    "matching diagonal": {
        "model_type": "sde_matching",
        "sde": VECTOR | {"noise": "diagonal", "start_components": 2},
    },
    "matching some frames": {
        "model_type": "sde_matching",
        "sde": VECTOR,
        "matching": {"frames": 2},
    },
    "follmer": {"model_type": "follmer", "sde": VECTOR | {"start_components": 2}},
    "follmer map": {"model_type": "follmer", "sde": MAP},
}


def objective(kind, **more):
    torch.manual_seed(0)
    clip_objective = build(parse(SMALL | KINDS[kind] | more))
    return factories.shake(clip_objective)


clips = factories.clips


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
def test_clips_terms_do_not_depend_on_its_batch(kind, context):
    clip_objective = objective(kind)
    video, ticks, serial = clips(5)
    together = clip_objective.terms(video, ticks, serial, context)
    alone = clip_objective.terms(video[2:3], ticks[2:3], serial[2:3], context)
    for name in together.keys() - {"diffusion"}:
        torch.testing.assert_close(alone[name][0], together[name][2], rtol=1e-4, atol=1e-3)


def test_some_frames_stand_for_all_of_them():
    """The factor N: two frames of six, weighed, have the mean of the sum over six."""
    whole = objective("matching").eval()
    some = objective("matching some frames").eval()
    some.load_state_dict(whole.state_dict())
    video, ticks, _ = clips(1)
    count = 400
    serial = torch.arange(count)
    arguments = video.expand(count, *video.shape[1:]), ticks.expand(count, -1), serial, 0
    with torch.no_grad():
        want = whole.terms(*arguments)["reconstruction"]
        scores = some.terms(*arguments)["reconstruction"]
    error = (scores.var() / count + want.var() / count).sqrt()
    assert scores.std() > 2 * want.std()  # they do differ from draw to draw
    assert abs(scores.mean() - want.mean()) < 4 * error
    assert abs(scores.mean() / want.mean() - 1) < 0.02


def test_matching_calls_no_solver(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a solver was called")

    clip_objective = objective("matching")
    monkeypatch.setattr(solve, "choose", refuse)
    clip_objective(*clips(4), kl_weight=1.0)["loss"].backward()
    with pytest.raises(AssertionError, match="solver"):
        clip_objective.model.sample(frame_ticks(3)[None], seed=0, serial=torch.tensor([0]))


def test_path_is_scored_at_the_clips_own_times():
    clip_objective = objective("matching")
    video, ticks, serial = clips(4)
    even = clip_objective.terms(video, ticks, serial, 0)
    uneven = clip_objective.terms(video, ticks + torch.tensor([0, 900, -900, 300, 0, 0]), serial, 0)
    assert uneven["kl_path"].isfinite().all()
    assert (even["kl_path"] - uneven["kl_path"]).abs().min() > 1e-3


def test_bridge_loss_gives_posterior_and_decoder_no_gradient():
    clip_objective = objective("follmer")
    terms = clip_objective.terms(*clips(4), 0)
    (terms["bridge"].sum() + terms["kl_initial"].sum()).backward()
    changed = {n.split(".")[1] for n, p in clip_objective.named_parameters() if p.grad is not None}
    assert "bridge" in changed
    assert not changed & {"decoder", "posterior"}


@pytest.mark.parametrize("kind", ["follmer", "follmer map", "matching", "matching map"])
def test_sample_depends_on_seed_and_serial_not_on_the_batch(kind):
    clip_objective = objective(kind).model
    ticks = frame_ticks(4).expand(3, -1)
    together = clip_objective.sample(ticks, seed=3, serial=torch.arange(3))
    alone = clip_objective.sample(ticks[:1], seed=3, serial=torch.tensor([2]))
    assert together.shape == (3, 4, 1, 16, 16)
    torch.testing.assert_close(alone[0], together[2], rtol=1e-4, atol=1e-5)
    other = clip_objective.sample(ticks[:1], seed=4, serial=torch.tensor([2]))
    assert (other - alone).abs().max() > 1e-3


def test_bridges_diffusion_can_be_changed_after_training():
    clip_objective = objective("follmer").model
    sampler = SamplerConfig(seed=3, serial=torch.tensor([0]))
    ticks = frame_ticks(4)[None]
    learnt = clip_objective.generate(ticks, sampler).frames
    other = clip_objective.generate(ticks, sampler._replace(bridge_diffusion="follmer")).frames
    assert other.isfinite().all()
    assert (other - learnt).abs().max() > 1e-3

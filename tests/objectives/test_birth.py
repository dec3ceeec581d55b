"""Every objective with a start that is born: what it learns, its bound, and guidance over both."""

from __future__ import annotations

import factories
import pytest
import torch

from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.models.sampling import Conditioning, SamplerConfig
from sdevid.models.text import as_bytes
from sdevid.objectives import build, importance
from sdevid.objectives.history_objective import HistoryObjective
from sdevid.types import frame_ticks

KINDS = ["latent_sde", "sde_matching", "follmer"]
SMALL = factories.settings(
    sequence_length=4,
    observation={"max_context": 2},
    text={"encoder": "bytes", "layers": 1},
    birth={"steps": 5, "drawn": 2, "hidden": 16, "heads": 2, "depth": 1},
    follmer={"steps": 3},
)
SDE = {"latent_size": 3, "content_size": 2, "hidden": 16, "start": "birth"}


def objective(kind: str, latent: str = "map") -> HistoryObjective:
    clip_objective = build(parse(SMALL | {"model_type": kind, "sde": SDE | {"latent": latent}}))
    torch.manual_seed(0)
    return factories.shake(clip_objective)


def clips(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    video = torch.randint(0, 256, (count, 4, 16, 16, 1), dtype=torch.uint8)
    return video, frame_ticks(4).expand(count, -1), torch.arange(count)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("latent", ["map", "vector"])
def test_birth_replaces_two_divergences_and_every_weight_learns(kind, latent):
    clip_objective = objective(kind, latent)
    text = as_bytes(["left", "right", "", "up"] * 2, 8)._asdict()
    means = clip_objective(*clips(8), kl_weight=1.0, **text)
    means["loss"].backward()
    still = [
        n
        for n, p in clip_objective.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert still == []
    assert "kl_birth" in means
    assert not {"kl_initial", "kl_content"} & set(means)


@torch.no_grad()
def test_drawn_steps_have_the_evaluation_bound_as_mean():
    clip_objective = objective("latent_sde", "vector")
    video, ticks, _ = clips(1)
    many, serial = (video.expand(400, *video.shape[1:]), ticks.expand(400, -1)), torch.arange(400)
    few = clip_objective.train().terms(*many, serial, context=0)["kl_birth"]
    whole = clip_objective.eval().terms(*many, serial, context=0)["kl_birth"]
    error = float(few.std() + whole.std()) / 20
    assert float(few.mean()) == pytest.approx(float(whole.mean()), abs=4 * error)
    assert float(few.std()) > 1.2 * float(whole.std())


@torch.no_grad()
def test_mean_of_importance_weights_is_the_bound():
    clip_objective = objective("latent_sde", "vector").eval()
    video, ticks, _ = clips(1)
    many, serial = (video.expand(400, *video.shape[1:]), ticks.expand(400, -1)), torch.arange(400)
    elbo = clip_objective.terms(*many, serial, context=0)["elbo"]
    weights = importance.log_weight(clip_objective, *many, serial)
    error = float(elbo.std() + weights.std()) / 20
    assert float(weights.mean()) == pytest.approx(float(elbo.mean()), abs=4 * error)
    assert float(torch.logsumexp(weights, 0)) - torch.tensor(400.0).log() > float(elbo.mean())


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_moves_birth_and_path_at_a_cost_in_nats(kind):
    model = objective(kind).model.eval()
    ticks, conditioning = frame_ticks(3).expand(2, -1), Conditioning(text=as_bytes(["left"] * 2, 8))
    sampler = SamplerConfig(1, torch.arange(2), guidance_scale=3.0)
    plain = model.generate(ticks, sampler._replace(guidance_scale=1.0), conditioning)
    guided = model.generate(ticks, sampler, conditioning)
    assert float(plain.nats.max()) == 0
    assert bool((guided.nats > 0).all())
    first = (guided.frames - plain.frames)[:, 0].abs().flatten(1).amax(1)
    assert bool((first > 1e-4).all())  # the first frame too, which a Gaussian start leaves alone
    still = torch.zeros_like(ticks)  # no time passes: what is spent is the birth's alone
    spent = [
        model.generate(still, sampler._replace(temperature=t), conditioning).nats
        for t in (1.0, 0.5)
    ]
    assert bool((spent[0] > 0).all())
    assert bool((spent[0] < guided.nats).all())
    assert bool(((spent[1] > 2 * spent[0]) & (spent[1] < 8 * spent[0])).all())


@pytest.mark.parametrize("kind", KINDS)
def test_born_video_does_not_depend_on_the_batch_around_it(kind):
    model = objective(kind).model.eval()
    ticks = frame_ticks(3)
    both = model.generate(ticks.expand(2, -1), SamplerConfig(1, torch.tensor([4, 9]))).frames
    one = model.generate(ticks[None], SamplerConfig(1, torch.tensor([9]))).frames
    torch.testing.assert_close(both[1:], one, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("birth", "name"),
    [({"steps": 0}, r"birth\.steps"), ({"last": 1.0}, r"birth\.last"), ({"hidden": 20}, "heads")],
)
def test_birth_that_cannot_be_names_the_setting(birth, name):
    sde = SDE | {"latent": "map"}
    with pytest.raises(UserError, match=name):
        parse(SMALL | {"sde": sde, "birth": SMALL["birth"] | birth})

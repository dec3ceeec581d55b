"""The start as an SDE from nothing: units, places, context, and what guidance does to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdevid.config import Config, parse
from sdevid.errors import UserError
from sdevid.models.birth import Birth, negative_entropy
from sdevid.models.start import Guidance
from sdevid.models.temporal import History

SIDE, FEATURES = 2, 8


def config(latent: str = "map", text: str = "bytes") -> Config:
    return parse(
        {
            "frame_size": 8,
            "sde": {"latent": latent, "latent_size": 3, "content_size": 2, "start": "birth"},
            "encoder": {"map_size": SIDE, "features": FEATURES, "heads": 2},
            "birth": {"hidden": 16, "heads": 2, "depth": 2, "steps": 6, "last": 0.05},
            "text": {"encoder": text},
        }
    )


def birth(latent: str = "map", *, wild: bool = True) -> Birth:
    """A birth; `wild` draws the weights that start at zero, so that everything has an effect."""
    torch.manual_seed(0)
    result = Birth(config(latent), (SIDE, SIDE) if latent == "map" else None)
    for parameter in result.parameters() if wild else ():
        torch.nn.init.normal_(parameter, std=0.3)
    return result


def history(count: int, latent: str = "map") -> History:
    cells = SIDE**2 if latent == "map" else 1
    torch.manual_seed(1)
    summary = torch.randn(count, cells, FEATURES)
    return History(summary, torch.zeros(count, 0, cells, FEATURES), torch.randn(count, FEATURES))


def start(count: int, latent: str = "map") -> tuple[Tensor, Tensor]:
    """w and z_0."""
    torch.manual_seed(2)
    shape = (count, 3, SIDE, SIDE) if latent == "map" else (count, 3)
    return torch.randn(count, 2), torch.randn(*shape)


def repeated(one: History, count: int) -> History:
    return History(*(x if x is None else x.expand(count, *x.shape[1:]) for x in one))  # type: ignore[union-attr]


@pytest.mark.parametrize("latent", ["map", "vector"])
def test_untrained_birth_is_the_standard_normal(latent):
    result, count = birth(latent, wild=False), 1_000
    (w, z), text = start(1, latent), repeated(history(1, latent), count)
    many = w.expand(count, -1), z.expand(count, *z.shape[1:])
    noise = torch.randn(count, 6, result.size)
    with torch.no_grad():
        ratio = result.log_ratio(*many, text, noise)
    density = torch.logsumexp(ratio, 0) - torch.tensor(float(count)).log()
    normal = torch.distributions.Normal(0.0, 1.0)
    exact = normal.log_prob(w).sum() + normal.log_prob(z).sum()
    assert float(density) == pytest.approx(float(exact), abs=0.2)


def test_learnt_units_count_as_a_change_of_variables():
    result, (w, z), text = birth(wild=False), start(4), history(4)
    noise = torch.randn(4, 6, result.size)
    before = result.negative_log_prob(w, z, text, noise)
    with torch.no_grad():
        result.mean.fill_(0.7)
        result.log_scale.fill_(0.5)
    scale = torch.tensor(0.5).exp()
    after = result.negative_log_prob(0.7 + scale * w, 0.7 + scale * z, text, noise)
    torch.testing.assert_close(after, before + 0.5 * result.size)


@pytest.mark.parametrize("latent", ["map", "vector"])
def test_few_drawn_steps_estimate_all_of_them(latent):
    result, (w, z), count = birth(latent), start(1, latent), 2_000
    text = repeated(history(1, latent), count)
    many = w.expand(count, -1), z.expand(count, *z.shape[1:])
    with torch.no_grad():
        whole = result.negative_log_prob(*many, text, torch.randn(count, 6, result.size))
        draws = torch.rand(count, 2)
        some = result.negative_log_prob(*many, text, torch.randn(count, 2, result.size), draws)
    error = float(whole.std() + some.std()) / count**0.5
    assert float(some.mean()) == pytest.approx(float(whole.mean()), abs=4 * error)
    assert 4 * error < 0.1 * abs(float(whole.mean()))


def test_birth_sample_has_the_states_units_and_shapes():
    result = birth(wild=False)
    with torch.no_grad():
        result.mean.fill_(2.0)
        result.log_scale.fill_(-2.0)
        begun = result.draw(history(500), torch.randn(500, 6, result.size), Guidance())
    assert begun.z.shape == (500, 3, SIDE, SIDE)
    assert begun.w.shape == (500, 2)
    assert float(begun.z.mean()) == pytest.approx(2.0, abs=0.02)
    assert float(begun.z.std()) == pytest.approx(torch.tensor(-2.0).exp().item(), rel=0.05)


def test_context_of_a_cell_moves_the_endpoint():
    result, text = birth(), history(1)
    noise = torch.randn(1, 6, result.size)
    other = text._replace(summary=text.summary.clone())
    other.summary[:, 3] += 1.0
    with torch.no_grad():
        apart = result.draw(text, noise, Guidance()).z - result.draw(other, noise, Guidance()).z
    assert float(apart.abs().max()) > 1e-3


def test_birth_guidance_leads_from_the_other_text_at_a_cost():
    result, text = birth(), history(64)
    away = text._replace(text=torch.zeros(64, FEATURES))
    noise = torch.randn(64, 6, result.size)

    def begun(scale: float) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            value = result.draw(text, noise, Guidance(away, scale))
        return value.z, value.nats

    plain = result.draw(text, noise, Guidance())
    torch.testing.assert_close(begun(1.0)[0], plain.z)
    assert float(begun(1.0)[1].max()) == 0
    torch.testing.assert_close(begun(0.0)[0], result.draw(away, noise, Guidance()).z)
    assert bool((begun(3.0)[1] > begun(2.0)[1]).all())
    assert bool((begun(-1.0)[1] > 0).all())


def test_negative_entropy_is_the_mean_of_the_log_density():
    scale = torch.tensor([[0.3, 2.0]])
    law = torch.distributions.Normal(torch.zeros(1, 2), scale)
    torch.testing.assert_close(negative_entropy(scale), -law.entropy().sum(1))


def test_bad_steps_name_the_setting():
    with pytest.raises(UserError, match=r"birth\.steps"):
        parse({"birth": {"steps": 0}})

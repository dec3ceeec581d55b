"""Noise shared by nearness: its posterior and KL against dense Gaussians, limits, and the law."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

from sdevid.errors import UserError
from sdevid.sde import carried_noise

PARTICLES, AXES = 7, 2


def scene(seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    return {
        "positions": 8 * normal(3, PARTICLES, 2),
        "observed": normal(3, PARTICLES, AXES),
        "precision": (2 * normal(3, PARTICLES, AXES)).exp(),
        "length": torch.tensor(4.0, dtype=dtype),
    }


def solved(parts: dict[str, torch.Tensor]) -> carried_noise.NoisePosterior:
    root = carried_noise.root(parts["positions"], parts["length"])
    return carried_noise.posterior(root, parts["observed"], parts["precision"])


def dense(parts: dict[str, torch.Tensor]) -> tuple[MultivariateNormal, MultivariateNormal]:
    """Prior and posterior of f by Bayes' rule on whole covariances, by axis."""
    apart = torch.cdist(parts["positions"], parts["positions"])
    shared = torch.exp(-(apart**2) / (2 * parts["length"] ** 2))
    mixed = (1 - carried_noise.JITTER) * shared + carried_noise.JITTER * torch.eye(
        PARTICLES, dtype=shared.dtype
    )
    covariance = mixed[:, None].expand(3, AXES, PARTICLES, PARTICLES)
    lam = torch.diag_embed(parts["precision"].transpose(1, 2))
    narrowed = torch.linalg.inv(torch.linalg.inv(covariance) + lam)
    mean = (narrowed @ lam @ parts["observed"].transpose(1, 2)[..., None])[..., 0]
    narrowed = 0.5 * (narrowed + narrowed.transpose(-1, -2))
    prior = MultivariateNormal(torch.zeros_like(mean), covariance)
    return prior, MultivariateNormal(mean, narrowed)


def test_posterior_and_kl_equal_bayes_rule_on_dense_covariances():
    parts = scene()
    step, (prior, exact) = solved(parts), dense(parts)
    assert_close(step.kl, kl_divergence(exact, prior).sum(1))
    assert_close((step.root @ step.mean).transpose(1, 2), exact.mean)
    white = torch.eye(PARTICLES, dtype=torch.float64)[:, :, None].expand(-1, -1, AXES)
    shift = step.root @ step.mean
    columns = [step.draw(xi.expand(3, -1, -1)) - shift for xi in white]
    spread = torch.stack(columns, -1).transpose(1, 2)  # (batch, axes, particle, xi)
    assert_close(spread @ spread.transpose(-1, -2), exact.covariance_matrix)


def test_kl_from_a_shifted_prior_is_that_of_dense_gaussians():
    parts = scene(4)
    step, (prior, exact) = solved(parts), dense(parts)
    mean = torch.randn(3, PARTICLES, AXES, dtype=torch.float64, requires_grad=True)
    shifted = MultivariateNormal(mean.transpose(1, 2), prior.covariance_matrix)
    kl, truth = step.kl_from(mean), kl_divergence(exact, shifted).sum(1)
    assert_close(kl, truth)
    (slope,) = torch.autograd.grad(kl.sum(), mean, retain_graph=True)
    assert_close(slope, torch.autograd.grad(truth.sum(), mean)[0])
    assert_close(step.kl_from(torch.zeros_like(mean)), step.kl)


def test_axes_of_one_precision_share_one_factor():
    parts = scene(2)
    shared = parts["precision"][..., :1]
    one = solved(parts | {"precision": shared})
    each = solved(parts | {"precision": shared.expand(-1, -1, AXES)})
    assert one.factor.shape[-3] == 1
    assert_close(one.kl, each.kl)
    xi = torch.randn(3, PARTICLES, AXES, dtype=torch.float64)
    assert_close(one.draw(xi), each.draw(xi))


@given(seed=st.integers(0, 50))
def test_independent_particles_are_the_diagonal_chain(seed):
    parts = scene(seed)
    root = carried_noise.independent(parts["positions"])
    step = carried_noise.posterior(root, parts["observed"], parts["precision"])
    mean, width, kl = carried_noise.own_posterior(parts["observed"], parts["precision"])
    assert_close(width**2, 1 / (1 + parts["precision"]))
    exact = kl_divergence(Normal(mean, width), Normal(0.0, 1.0))
    assert_close(kl, exact)
    assert_close(step.kl, exact.sum((1, 2)))
    xi = torch.ones_like(mean)
    assert_close(step.draw(xi), mean + width * xi)


def test_unobserved_particle_costs_nothing():
    parts = scene()
    parts["precision"] = torch.zeros_like(parts["precision"])
    step = solved(parts)
    assert_close(step.kl, torch.zeros_like(step.kl), atol=1e-12, rtol=0)
    xi = torch.randn(3, PARTICLES, AXES, dtype=torch.float64)
    assert_close(step.draw(xi), carried_noise.prior_draw(step.root, xi))


def test_observed_particle_carries_its_neighbour_alone():
    positions = torch.tensor([[0.0, 0.0], [1.0, 0.0], [40.0, 0.0]], dtype=torch.float64)
    root = carried_noise.root(positions, torch.tensor(4.0, dtype=torch.float64))
    observed = torch.tensor([[2.0, -1.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    precision = torch.tensor([[1e6, 1e6], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    step = carried_noise.posterior(root, observed, precision)
    shift = step.root @ step.mean
    expected = (1 - carried_noise.JITTER) * math.exp(-1 / 32)
    assert_close(shift[1], expected * observed[0], rtol=1e-4, atol=1e-4)
    assert_close(shift[2], torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)


def test_float32_gradients_match_float64():
    wanted, given_ = {}, {}
    for dtype, grads in ((torch.float64, wanted), (torch.float32, given_)):
        parts = {k: v.to(dtype).requires_grad_() for k, v in scene(3).items()}
        step = solved(parts)
        xi = torch.ones(3, PARTICLES, AXES, dtype=dtype)
        loss = step.kl.sum() + (step.draw(xi) ** 2).sum()
        grads |= dict(zip(parts, torch.autograd.grad(loss, list(parts.values())), strict=True))
    for name, gradient in wanted.items():
        assert_close(given_[name].double(), gradient, rtol=1e-3, atol=1e-3, msg=name)


def test_gradients_match_finite_differences():
    parts = {name: value[:1] if value.dim() else value for name, value in scene(5).items()}
    leaves = [value.requires_grad_() for value in parts.values()]

    def kl_and_draw(*values: torch.Tensor) -> torch.Tensor:
        step = solved(dict(zip(parts, values, strict=True)))
        return torch.cat([step.kl, step.draw(torch.ones(1, PARTICLES, AXES).double()).flatten()])

    assert torch.autograd.gradcheck(kl_and_draw, leaves)


def fitted_variance(sources: int, shared: bool) -> float:
    """The g^2 that the bound prefers where `sources` particles move one seen thing.

    Their mean's displacement is seen with error variance .01 and has variance 1 in the data; the
    posterior of each is a gain on what is seen and a precision. Expectations are exact.
    """
    error = 0.01
    root = torch.eye(sources, dtype=torch.float64)
    if shared:
        positions = torch.zeros(sources, 2, dtype=torch.float64)
        root = carried_noise.root(positions, torch.tensor(1.0, dtype=torch.float64))
    unit = torch.full((sources,), 1.0, dtype=torch.float64)
    unit = unit / (root.T @ unit).norm()  # so that the prior moves what is seen by g^2
    best = torch.zeros(3, dtype=torch.float64, requires_grad=True)  # log g, gain, log precision

    def bound() -> torch.Tensor:
        g, gain, lam = best[0].exp(), 1 + best[1], (best[2] + 3).exp()
        precision = (gain * (1 + error) ** 0.5 * unit[:1] * sources / g).expand(sources, 1)
        step = carried_noise.posterior(root, precision, lam.expand(sources, 1))
        mean = g * (unit @ (step.root @ step.mean))[0]
        arm = torch.linalg.solve_triangular(
            step.factor[0], (step.root.T @ unit)[:, None], upper=False
        )
        missed = (mean - (1 + error) ** 0.5) ** 2 + (g * arm).square().sum()
        return 0.5 * math.log(error) + 0.5 * missed / error + step.kl

    search = torch.optim.LBFGS([best], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        search.zero_grad()
        loss = bound()
        loss.backward()
        return loss

    search.step(closure)
    return float((2 * best[0].detach()).exp())


@pytest.mark.parametrize(("sources", "learnt"), [(1, 1.00), (2, 0.505), (4, 0.270), (9, 0.156)])
def test_carried_noise_alone_recovers_the_true_diffusion(sources, learnt):
    assert fitted_variance(sources, shared=False) == pytest.approx(learnt, abs=0.005)
    assert fitted_variance(sources, shared=True) == pytest.approx(1.0, abs=0.02)


@pytest.mark.usefixtures("without_type_checks")
def test_shapes_that_do_not_fit_are_named():
    root = carried_noise.independent(torch.zeros(2, 5, 2))
    with pytest.raises(UserError, match=r"\(2, 4, 2\)"):
        carried_noise.posterior(root, torch.zeros(2, 4, 2), torch.zeros(2, 4, 2))

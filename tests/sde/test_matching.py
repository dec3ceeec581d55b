"""The posterior chain from its marginals: its KL, its bound, its paths, its bridges."""

import math
from itertools import pairwise

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from sdevid.sde.matching import (
    Marginals,
    bridge,
    correlation,
    draw_path,
    step_kl,
    step_log_ratio,
)

F64 = torch.float64


def smoother(slope, g, dt, seen, noise):
    """Marginals and evidence of z' = z + a z d + g dW seen with noise, z_0 ~ N(0, 1): exactly."""
    points = len(dt) + 1
    flow = torch.eye(points, dtype=F64)
    for k in range(points - 1):
        flow[k + 1] = (1 + slope * dt[k]) * flow[k]
        flow[k + 1, k + 1] = 1
    sources = torch.diag(torch.cat([torch.ones(1, dtype=F64), g**2 * dt]))
    prior = flow @ sources @ flow.T
    gain = prior @ torch.linalg.inv(prior + noise**2 * torch.eye(points, dtype=F64))
    mean, cov = gain @ seen, prior - gain @ prior
    law = MultivariateNormal(
        torch.zeros(points, dtype=F64), prior + noise**2 * torch.eye(points, dtype=F64)
    )
    return mean, cov, law.log_prob(seen)


DT = torch.tensor([0.3, 0.15, 0.65, 0.5], dtype=F64)
SEEN = torch.tensor([0.5, 0.2, 0.4, -0.3, 0.1], dtype=F64)
SLOPE, G, NOISE = -1.2, 0.7, 0.3


def linear_chain():
    mean, cov, evidence = smoother(SLOPE, G, DT, SEEN, NOISE)
    marginals = Marginals(mean[None], cov.diagonal().sqrt()[None])
    return marginals, cov, evidence


def expected_kl(marginals, dt, rho, slope, g):
    """The mean over eps: a step's KL is a square of eps's line, so two points are exact."""
    total = 0.0
    for eps in (-1.0, 1.0):
        draws = torch.full_like(marginals.mean, eps)
        z = (marginals.mean + marginals.scale * draws)[:, :-1]
        total = total + 0.5 * step_kl(marginals, draws, slope * z, g.expand_as(z), dt, rho)
    return total.sum()


def test_bound_at_the_smoothers_marginals_is_the_evidence():
    marginals, _, evidence = linear_chain()
    g = torch.full((1, 4), G, dtype=F64)
    rho = correlation(marginals, g, DT[None], SLOPE)
    first = Normal(marginals.mean[0, 0], marginals.scale[0, 0])
    bound = -expected_kl(marginals, DT[None], rho, SLOPE, g)
    bound = bound - kl_divergence(first, Normal(0.0, 1.0))
    misfit = (SEEN - marginals.mean[0]).square() + marginals.scale[0].square()
    bound = bound - (0.5 * misfit / NOISE**2 + 0.5 * math.log(2 * math.pi * NOISE**2)).sum()
    torch.testing.assert_close(bound, evidence, rtol=1e-9, atol=1e-9)
    loose = expected_kl(marginals, DT[None], correlation(marginals, g, DT[None]), SLOPE, g)
    assert loose > expected_kl(marginals, DT[None], rho, SLOPE, g) + 1e-4


def test_correlation_is_the_smoothers_own():
    marginals, cov, _ = linear_chain()
    rho = correlation(marginals, torch.full((1, 4), G, dtype=F64), DT[None], SLOPE)
    scale = marginals.scale[0]
    torch.testing.assert_close(rho[0], cov.diagonal(1) / (scale[:-1] * scale[1:]))


def test_correlation_minimises_the_kl():
    marginals, _, _ = linear_chain()
    g = torch.full((1, 4), G, dtype=F64)
    rho = correlation(marginals, g, DT[None], SLOPE).requires_grad_()
    kl = expected_kl(marginals, DT[None], rho, SLOPE, g)
    (slope,) = torch.autograd.grad(kl, rho)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-9)
    for shift in (-1e-2, 1e-2):
        assert expected_kl(marginals, DT[None], rho + shift, SLOPE, g) > kl


def test_step_kl_with_state_dependent_g_is_the_gaussian_kl():
    torch.manual_seed(0)
    marginals = Marginals(torch.randn(2, 4, 3, dtype=F64), 0.1 + torch.rand(2, 4, 3, dtype=F64))
    eps, dt = torch.randn(2, 4, 3, dtype=F64), torch.rand(2, 3, 1, dtype=F64)
    z = (marginals.mean + marginals.scale * eps)[:, :-1]
    drift, g = torch.sin(z), 0.4 + 0.2 * z.square()
    rho = correlation(marginals, 0.4 + 0.2 * marginals.mean[:, :-1].square(), dt)
    _, _, mean, scale = marginals.steps()
    own = Normal(mean + rho * scale * eps[:, :-1], scale * (1 - rho.square()).sqrt())
    prior = Normal(z + drift * dt, g * dt.sqrt())
    torch.testing.assert_close(
        step_kl(marginals, eps, drift, g, dt, rho), kl_divergence(own, prior)
    )
    path = marginals.mean + marginals.scale * eps
    want = prior.log_prob(path[:, 1:]) - own.log_prob(path[:, 1:])
    torch.testing.assert_close(step_log_ratio(marginals, eps, drift, g, dt, rho), want)


def test_step_of_no_time_costs_nothing():
    marginals = Marginals(torch.zeros(1, 3), torch.ones(1, 3))
    g, dt, eps = torch.ones(1, 2), torch.tensor([[0.5, 0.0]]), torch.randn(1, 3)
    rho = correlation(marginals, g, dt)
    assert rho[0, 1] == 1
    kl = step_kl(marginals, eps, torch.ones(1, 2), g, dt, rho)
    assert kl[0, 0] > 0
    assert kl[0, 1] == 0


def test_paths_have_the_marginals_and_the_mean_ratio_is_the_kl():
    torch.manual_seed(0)
    marginals, _, _ = linear_chain()
    g = torch.full((1, 4), G, dtype=F64)
    rho, count = correlation(marginals, g, DT[None], SLOPE), 40_000
    kl = expected_kl(marginals, DT[None], rho, SLOPE, g)
    marginals = Marginals(*(part.expand(count, 5) for part in marginals))
    dt, rho, g = (part.expand(count, 4) for part in (DT[None], rho, g))
    eps = draw_path(rho, torch.randn(count, dtype=F64), torch.randn(count, 4, dtype=F64))
    assert (eps.mean(0).abs() < 0.03).all()
    assert ((eps.std(0) - 1).abs() < 0.02).all()
    z = marginals.mean + marginals.scale * eps
    ratio = step_log_ratio(marginals, eps, SLOPE * z[:, :-1], g, dt, rho).sum(1)
    assert abs(-ratio.mean() - kl) < 4 * ratio.std() / math.sqrt(count)


@pytest.mark.parametrize("shares", [(0.25, 0.5, 0.75), (0.1, 0.7, 0.8)])
def test_bridge_costs_a_brownian_prior_no_more_than_its_frames(shares):
    """Substeps add no KL where the drift is 0, at even and uneven times, and beside padding."""
    frames = Marginals(
        torch.tensor([[0.3, 0.9, -0.2, -0.2]], dtype=F64),
        torch.tensor([[0.2, 0.5, 0.1, 0.1]], dtype=F64),
    )
    ends = torch.tensor([0.0, 0.4, 1.1, 1.1], dtype=F64)
    pairs = list(pairwise(ends))
    inner = [a + s * (b - a) for a, b in pairs for s in (*shares, 1)]
    times, saved = torch.stack([ends[0], *inner])[None], [0, 4, 8, 12]
    g = torch.full((1, 3), 0.6, dtype=F64)
    coarse = correlation(frames, g, ends[None].diff(dim=1))
    want = expected_kl(frames, ends[None].diff(dim=1), coarse, 0.0, g)
    fine = bridge(frames, g, times, saved)
    wide, dt = torch.full((1, 12), 0.6, dtype=F64), times.diff(dim=1)
    got = expected_kl(fine, dt, correlation(fine, wide, dt), 0.0, wide)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fine.mean[:, saved], frames.mean)
    torch.testing.assert_close(fine.scale[:, saved], frames.scale)

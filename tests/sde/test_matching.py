"""SDEs from their marginals, against the Fokker-Planck equation and an exact evidence."""

import math
from itertools import pairwise

import pytest
import torch
from torch.distributions import MultivariateNormal

from sdevid.sde.matching import (
    Curve,
    Moving,
    Spots,
    Spread,
    conditional_drift,
    stratified,
    tangents,
)


def mean_at(t):
    return 0.3 + 0.8 * t - 0.5 * t**2


def scale_at(t):
    return 0.4 + 0.2 * torch.sin(2 * t)


def rate(curve, t):
    at = t.detach().requires_grad_()
    return torch.autograd.grad(curve(at).sum(), at, create_graph=True)[0]


def g_at(z):
    return 0.3 + 0.2 * torch.tanh(z)


@pytest.mark.parametrize("divergence", [True, False])
def test_the_drift_solves_the_fokker_planck_equation_only_with_the_divergence_term(divergence):
    t = torch.full((41,), 0.7, dtype=torch.float64)
    z = torch.linspace(-0.6, 1.4, 41, dtype=torch.float64)

    def density(t, z):
        return torch.exp(-0.5 * ((z - mean_at(t)) / scale_at(t)) ** 2) / scale_at(t)

    def flux(z):  # f p - 1/2 d(g^2 p)/dz
        eps = (z - mean_at(t)) / scale_at(t)
        mean = Moving(mean_at(t), rate(mean_at, t))
        scale = Moving(scale_at(t), rate(scale_at, t))
        slope = 0.2 * (1 - torch.tanh(z) ** 2) if divergence else None
        f = conditional_drift(mean, scale, eps, g_at(z), slope)
        rise = 2 * g_at(z) * 0.2 * (1 - torch.tanh(z) ** 2)
        spread = (rise - g_at(z) ** 2 * eps / scale_at(t)) * density(t, z)
        return f * density(t, z) - 0.5 * spread

    change = rate(lambda x: density(x, z), t)
    flow = rate(flux, z)
    wrong = float((change + flow).detach().abs().max())
    assert (wrong < 1e-10) == divergence
    assert divergence or wrong > 1e-2


def test_the_matching_bound_is_the_evidence_at_the_exact_posterior():
    """OU seen with noise: T E 1/2 |(h - f) / g|^2 + KL(z_0) + sum_i E -log p(x_i) = -log p(x)."""
    theta, sigma, noise = 1.2, 0.7, 0.1
    times = torch.tensor([0.0, 0.3, 0.45, 1.1, 1.6], dtype=torch.float64)
    seen = torch.tensor([0.5, 0.2, 0.4, -0.3, 0.1], dtype=torch.float64)
    variance = sigma**2 / (2 * theta)

    def kernel(a, b):
        return variance * torch.exp(-theta * (a[:, None] - b[None]).abs())

    gram = kernel(times, times) + noise**2 * torch.eye(5, dtype=torch.float64)
    inverse = torch.linalg.inv(gram)

    def mean(t):
        return kernel(t, times) @ inverse @ seen

    def scale(t):
        return (variance - ((kernel(t, times) @ inverse) * kernel(t, times)).sum(1)).sqrt()

    nodes, weights = gauss_legendre(24)
    path = 0.0
    for start, end in pairwise(times):
        t = start + (end - start) * (nodes + 1) / 2
        m, s = Moving(mean(t), rate(mean, t)), Moving(scale(t), rate(scale, t))
        g = torch.full_like(t, sigma)
        squared = 0.0
        for eps in (-1.0, 1.0):  # the integrand is a square of eps's line: two points are exact
            noise_at = torch.full_like(t, eps)
            own = conditional_drift(m, s, noise_at, g, None)
            squared = squared + 0.5 * ((-theta * (m.value + s.value * eps) - own) / g) ** 2
        path = path + ((end - start) / 2 * weights * 0.5 * squared).sum()
    m, s = mean(times), scale(times)
    first = 0.5 * ((s[0] ** 2 + m[0] ** 2) / variance - 1) - torch.log(s[0] / math.sqrt(variance))
    misfit = 0.5 * ((seen - m) ** 2 + s**2) / noise**2 + 0.5 * math.log(2 * math.pi * noise**2)
    evidence = MultivariateNormal(torch.zeros(5, dtype=torch.float64), gram).log_prob(seen)
    torch.testing.assert_close(path + first + misfit.sum(), -evidence, rtol=1e-7, atol=1e-7)


def gauss_legendre(count):
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


def random_curve(times, size=3):
    values = torch.randn(2, times.shape[1], size, dtype=torch.float64)
    bump = torch.randn(2, times.shape[1] - 1, 3, size, dtype=torch.float64)
    return Curve(values, tangents(values, times), bump)


TIMES = torch.tensor([[0.0, 0.1, 0.4, 0.9], [0.0, 0.5, 0.5, 0.5]], dtype=torch.float64)


def test_a_curve_passes_through_its_knots_and_its_rate_is_its_derivative():
    torch.manual_seed(0)
    curve = random_curve(TIMES)
    place = torch.tensor([[0, 0, 1, 2, 2], [0, 0, 0, 0, 0]])
    share = torch.tensor([[0.0, 1.0, 0.3, 0.5, 1.0], [0.0, 0.2, 0.6, 0.9, 1.0]]).double()
    span = TIMES.diff(dim=1).gather(1, place)
    share.requires_grad_()
    found = curve.at(Spots(place, share, span))
    torch.testing.assert_close(found.value[0, 1], curve.values[0, 1])
    torch.testing.assert_close(found.value[0, 4], curve.values[0, 3])
    torch.testing.assert_close(found.value[1, 0], curve.values[1, 0])
    for component in range(3):
        (by_share,) = torch.autograd.grad(
            found.value[..., component].sum(), share, retain_graph=True
        )
        torch.testing.assert_close(by_share / span, found.rate[..., component].detach())


def test_without_its_bump_a_curve_is_smooth_at_a_knot_and_a_parabola_comes_back_whole():
    times = torch.tensor([[0.0, 0.2, 0.9, 1.3, 2.0]], dtype=torch.float64)
    values = (1 + 2 * times - 0.7 * times**2)[..., None]
    slopes = tangents(values, times)
    torch.testing.assert_close(slopes[:, 1:-1, 0], (2 - 1.4 * times)[:, 1:-1])
    curve = Curve(values, slopes, torch.zeros(1, 4, 3, 1, dtype=torch.float64))
    place, share = torch.tensor([[0, 1, 1, 2]]), torch.tensor([[1.0, 0.0, 0.37, 0.6]]).double()
    span = times.diff(dim=1).gather(1, place)
    found = curve.at(Spots(place, share, span))
    torch.testing.assert_close(found.rate[0, 0], found.rate[0, 1])
    at = times.gather(1, place) + share * span
    torch.testing.assert_close(found.value[0, 2:, 0], (1 + 2 * at - 0.7 * at**2)[0, 2:])


def test_a_spread_is_the_knots_own_at_them_and_its_rate_is_its_derivative():
    torch.manual_seed(0)
    level = random_curve(TIMES)._replace(bump=torch.zeros(2, 3, 3, 3, dtype=torch.float64))
    bridge, diffusion = torch.randn(2, 3, 3, 3).double(), 0.5 + torch.rand(2, 3, 3).double()
    spread = Spread(level, bridge, diffusion, 0.02)
    place = torch.tensor([[0, 0, 1, 2, 2], [0, 0, 0, 0, 0]])
    share = torch.tensor([[0.0, 1.0, 0.3, 0.5, 1.0], [0.0, 0.2, 0.6, 0.9, 1.0]]).double()
    span = TIMES.diff(dim=1).gather(1, place)
    share.requires_grad_()
    found = spread.at(Spots(place, share, span))
    for moment, knot in ((0, 0), (1, 1), (4, 3)):
        want = 0.02 + level.values[0, knot].exp()
        torch.testing.assert_close(found.value[0, moment], want)
    for component in range(3):
        (by_share,) = torch.autograd.grad(
            found.value[..., component].sum(), share, retain_graph=True
        )
        torch.testing.assert_close(by_share / span, found.rate[..., component].detach())


def test_a_spread_can_be_a_brownian_bridge_whose_drift_pulls_to_its_end():
    """From a known state to a known one: f = (end - z) / (h - t), at any g (Karatzas & Shreve)."""
    g, h, least = 0.6, 0.5, 1e-5
    times = torch.tensor([[0.0, h]], dtype=torch.float64)
    ends = torch.tensor([[0.3, -0.4]], dtype=torch.float64)[..., None]
    level = torch.full_like(ends, math.log(least / 2))
    still = torch.zeros(1, 1, 3, 1, dtype=torch.float64)
    bridge = still + torch.tensor([math.log(math.e - 1), 0, 0]).double()[:, None]
    place, share = torch.zeros(1, 9, dtype=torch.long), torch.linspace(0.1, 0.9, 9)[None].double()
    span = torch.full_like(share, h)
    mean = Curve(ends, tangents(ends, times), still).at(Spots(place, share, span))
    flat = Curve(level, torch.zeros_like(level), still)
    scale = Spread(flat, bridge, torch.full((1, 1, 1), g).double(), least / 2).at(
        Spots(place, share, span)
    )
    eps = torch.randn(1, 9, 1, dtype=torch.float64)
    drift = conditional_drift(mean, scale, eps, torch.full_like(eps, g), None)
    z, left = mean.value + scale.value * eps, (h * (1 - share))[..., None]
    torch.testing.assert_close(drift, (ends[:, 1:] - z) / left, rtol=1e-5, atol=1e-5)


def test_stratified_moments_lie_in_their_intervals_and_in_the_order_of_their_draws():
    moments = stratified(torch.rand(2, 7, dtype=torch.float64), TIMES)
    place, share, span = moments.spots
    assert (moments.elapsed.diff(dim=1) > 0).all()
    torch.testing.assert_close(TIMES.gather(1, place) + share * span, moments.elapsed)
    assert (place[1] == 0).all()
    assert ((share >= 0) & (share <= 1)).all()


def test_weighted_moments_give_the_integral_also_of_what_grows_to_the_end_of_an_interval():
    """Of 1 / (1.001 - u) over u in [0, 1], in three intervals; each draw is one of a fine grid."""
    count = 20_000
    draws = ((torch.arange(count) + 0.5) / count).double()[:, None].expand(-1, 5)
    moments = stratified(draws, TIMES[:1].expand(count, -1))
    found = moments.weight / (1.001 - moments.spots.share)
    want = math.log(1.001 / 0.001)
    assert found.mean().item() == pytest.approx(want, rel=1e-4)
    assert moments.weight.mean().item() == pytest.approx(1, rel=1e-4)
    even = 1 / (1.001 - draws)  # the same in one interval, drawn evenly
    assert found.var() < 0.1 * even.var()

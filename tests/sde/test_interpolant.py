"""Follmer's bridge to a Gaussian, in one dimension, where all is known."""

import pytest
import torch

from sdevid.sde import interpolant

X0, MEAN, SD, EPS = 0.4, -0.3, 0.5, 0.7  # x1 given x0 is N(MEAN, SD^2)


def law(s):
    """Mean and variance of I_s, and E[R_s | I_s = x] as offset and slope."""
    mean = (1 - s) * X0 + s**2 * MEAN
    sigma = EPS * (1 - s)
    variance = s**4 * SD**2 + sigma**2 * s
    covariance = 2 * s * s**2 * SD**2 - EPS * sigma * s  # of R_s and I_s
    return mean, variance, -X0 + 2 * s * MEAN, covariance / variance


def drift(x, s):
    mean, variance, offset, slope = law(s)
    at_start = torch.full_like(x, -X0)  # E[R_0] = -x0, with no law yet to condition on
    return torch.where(variance > 0, offset + slope * (x - mean), at_start)


def test_interpolant_and_its_rate_have_closed_form_moments():
    torch.manual_seed(0)
    count, s = 400_000, torch.tensor(0.6, dtype=torch.float64)
    x1 = MEAN + SD * torch.randn(count, dtype=torch.float64)
    xi = torch.randn(count, dtype=torch.float64)
    bridge = interpolant.interpolate(torch.tensor(X0), x1, xi, s, torch.tensor(EPS))
    mean, variance, offset, slope = law(s)
    error = count**-0.5
    assert abs(bridge.state.mean() - mean) < 5 * error
    assert abs(bridge.state.var() - variance) < 5 * error
    covariance = torch.cov(torch.stack([bridge.target, bridge.state]))[0, 1] / bridge.state.var()
    assert abs(covariance - slope) < 10 * error
    assert abs(bridge.target.mean() - offset) < 10 * error


@pytest.mark.parametrize("s", [0.05, 0.3, 0.8, 0.99])
def test_score_follows_from_the_drift(s):
    s = torch.tensor(s, dtype=torch.float64)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    mean, variance, *_ = law(s)
    x0, eps = torch.tensor(X0).double(), torch.tensor(EPS).double()
    score = interpolant.score(x, s, x0, drift(x, s), eps)
    torch.testing.assert_close(score, -(x - mean) / variance, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["interpolant", "follmer"])
def test_every_diffusion_ends_in_the_law_of_the_next_state(kind):
    torch.manual_seed(0)
    count, steps = 40_000, 400
    x0, eps = torch.tensor(X0).double(), torch.tensor(EPS).double()
    x = x0.expand(count)
    spread = []
    for k in range(steps):
        s = torch.tensor(k / steps, dtype=torch.float64)
        b, g = interpolant.rates(x, s, x0, drift(x, s), eps, kind if k else "interpolant")
        move = g * steps**-0.5 * torch.randn(count, dtype=torch.float64)
        x = x + b / steps + move
        spread.append(float(move.var()))
    # 4 standard errors of a mean and a variance, and one step's bias
    assert abs(x.mean() - MEAN) < 4 * SD * count**-0.5 + 2 / steps
    assert abs(x.var() / SD**2 - 1) < 4 * (2 / count) ** 0.5 + 6 / steps
    wanted = 3 if kind == "follmer" else 1
    assert spread[1] * steps / EPS**2 == pytest.approx(wanted, rel=0.05)

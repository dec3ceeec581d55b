"""Frechet's distance against the closed form for Gaussians, and the unbiased kernel distance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdevid.evaluate.statistics.bootstrap import ratio_of_means
from sdevid.evaluate.statistics.distribution import (
    frechet_distance,
    kernel_distance,
    resampled_frechet_distance,
)


def gaussian(rng, mean, root, count):
    """Features whose sample mean and covariance are exactly `mean` and root root^T."""
    x = rng.standard_normal((count, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(x, rowvar=False)))).T
    return mean + x @ np.asarray(root).T


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 6))
def test_commuting_gaussians_have_the_closed_form(seed, size):
    """|m - n|^2 + sum (s - t)^2, where the covariances share their axes (Dowson & Landau)."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((size, size)))[0]
    s, t = rng.uniform(0.2, 3, (2, size))
    m, n = rng.standard_normal((2, size))
    a, b = gaussian(rng, m, axes * s, 50), gaussian(rng, n, axes * t, 60)
    want = ((m - n) ** 2).sum() + ((s - t) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-8, abs=1e-8)


def test_two_by_two_covariances_that_do_not_commute():
    """tr (S T)^1/2 of a 2x2 product with eigenvalues l: their roots' sum (by hand)."""
    rng = np.random.default_rng(0)
    root_s, root_t = np.array([[2.0, 0], [0.5, 1]]), np.array([[1.0, 0.7], [0, 0.3]])
    s, t = root_s @ root_s.T, root_t @ root_t.T
    product = s @ t
    roots = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    a, b = gaussian(rng, np.zeros(2), root_s, 40), gaussian(rng, np.zeros(2), root_t, 40)
    want = np.trace(s) + np.trace(t) - 2 * roots
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-9)


def test_frechet_distance_of_few_videos_is_real():
    rng = np.random.default_rng(1)
    a = rng.standard_normal((20, 100)).astype(np.float32)
    assert abs(frechet_distance(a, a)) < 1e-5  # root of rounding in singular directions
    assert frechet_distance(a, a + 3) == pytest.approx(900, rel=1e-6)
    assert frechet_distance(a, rng.standard_normal((20, 100))) > 0


def test_spread_of_resamples_lies_about_the_distance():
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((200, 3)), rng.standard_normal((200, 3)) + 1
    estimate = resampled_frechet_distance(a, b)
    assert estimate.mean == frechet_distance(a, b)
    assert estimate.interval[0] < estimate.mean < estimate.interval[1]
    assert estimate.interval[0] < 3 < estimate.interval[1]


def test_kernel_distance_of_equal_laws_is_nothing_on_average():
    rng = np.random.default_rng(3)
    estimates = [kernel_distance(*rng.standard_normal((2, 30, 4))) for _ in range(120)]
    values = np.array([one.mean for one in estimates])
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(120)
    assert (values < 0).mean() > 0.3
    stated_error = np.mean([one.standard_error for one in estimates])
    assert (
        1 < stated_error / values.std() < 2.2
    )  # the statistic is degenerate here: rather too large


def test_kernel_distance_states_the_error_of_repetitions():
    rng = np.random.default_rng(7)
    results = [
        kernel_distance(rng.normal(0.7, 1, (60, 3)), rng.standard_normal((60, 3)))
        for _ in range(120)
    ]
    stated_error = np.mean([one.standard_error for one in results])
    assert stated_error == pytest.approx(np.std([one.mean for one in results]), rel=0.3)


def test_kernel_distance_of_shifted_gaussians_is_closed_form():
    """In one dimension, kernel (x y + 1)^3: the moments of N(m, 1) and N(0, 1) to the third."""
    m, rng = 0.8, np.random.default_rng(4)
    moments_m, moments = np.array([1, m, m**2 + 1, m**3 + 3 * m]), np.array([1, 0, 1, 0])
    exact = (np.array([1, 3, 3, 1]) * (moments_m - moments) ** 2).sum()
    values = [
        kernel_distance(rng.normal(m, 1, (60, 1)), rng.standard_normal((80, 1))).mean
        for _ in range(200)
    ]
    assert abs(np.mean(values) - exact) < 4 * np.std(values) / np.sqrt(200)


def test_kernel_distance_by_its_definition():
    a, b = np.random.default_rng(5).standard_normal((2, 5, 3))
    kernel = lambda x, y: (x @ y / 3 + 1) ** 3  # noqa: E731
    within = [
        np.mean([kernel(x, y) for i, x in enumerate(part) for j, y in enumerate(part) if i != j])
        for part in (a, b)
    ]
    across = np.mean([kernel(x, y) for x in a for y in b])
    assert kernel_distance(a, b).mean == pytest.approx(sum(within) - 2 * across)


def test_ratio_of_means_has_the_error_of_repeated_ratios():
    rng = np.random.default_rng(6)
    estimates = [
        ratio_of_means(rng.exponential(2.0, 60), rng.exponential(1.0, 90)) for _ in range(150)
    ]
    stated_error = np.mean([one.standard_error for one in estimates])
    assert stated_error == pytest.approx(np.std([one.mean for one in estimates]), rel=0.25)

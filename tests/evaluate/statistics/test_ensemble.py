"""Scores of ensembles against closed forms and hand-made tables."""

import math

import numpy as np
import pytest

from sdevid.evaluate.statistics.ensemble import (
    LEVELS,
    contingency,
    covered,
    crps,
    flatness,
    fractions_skill,
    pooled,
    probability_ranks,
    radial_spectrum,
    reliability_counts,
)


def gaussian_crps(mean, scale, y):
    """Gneiting & Raftery 2007, equation 21."""
    z = (y - mean) / scale
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + math.erf(z / math.sqrt(2)))
    return scale * (z * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi))


@pytest.mark.parametrize(("mean", "scale", "y"), [(0.0, 1.0, 0.3), (2.0, 0.5, 1.0)])
def test_crps_of_gaussian_ensemble_equals_closed_form(mean, scale, y):
    samples = np.random.default_rng(0).normal(mean, scale, (5, 200_000))
    score = crps(samples, np.full(200_000, y))
    error = score.std() / math.sqrt(score.size)
    assert abs(score.mean() - gaussian_crps(mean, scale, y)) < 4 * error


def test_fair_crps_alone_does_not_depend_on_members():
    rng = np.random.default_rng(1)
    y = rng.normal(size=100_000)
    few, many = rng.normal(size=(2, y.size)), rng.normal(size=(16, y.size))
    error = 4 * 2 * crps(few, y).std() / math.sqrt(y.size)
    assert abs(crps(few, y).mean() - crps(many, y).mean()) < error
    # plain: E|X - X'| / (2 m) too large, E|X - X'| = 2 / sqrt(pi)
    bias = crps(few, y, fair=False).mean() - crps(few, y).mean()
    assert bias == pytest.approx(1 / math.sqrt(math.pi) / 2, rel=0.02)


def test_crps_equals_pairwise_definition():
    rng = np.random.default_rng(2)
    samples, y = rng.normal(size=(7, 4, 3)), rng.normal(size=(4, 3))
    accuracy = np.abs(samples - y).mean(axis=0)
    apart = np.abs(samples[:, None] - samples[None]).sum(axis=(0, 1)) / 2
    np.testing.assert_allclose(crps(samples, y), accuracy - apart / (7 * 6))
    np.testing.assert_allclose(crps(samples, y, fair=False), accuracy - apart / 49)


def test_crps_of_one_member_is_absolute_error_and_nan_stays():
    score = crps(np.array([[1.0, 2.0, 3.0]]), np.array([0.0, 4.0, np.nan]))
    np.testing.assert_array_equal(score, [1.0, 2.0, np.nan])


@pytest.mark.parametrize("level", LEVELS)
def test_coverage_of_calibrated_toy_is_nominal(level):
    rng = np.random.default_rng(3)
    samples, y = rng.normal(size=(8, 40_000)), rng.normal(size=40_000)
    share = covered(probability_ranks(samples, y, rng), level).mean()
    assert share == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / y.size))


def test_coverage_of_narrow_ensemble_is_below_nominal():
    rng = np.random.default_rng(4)
    samples, y = 0.5 * rng.normal(size=(400, 5_000)), rng.normal(size=5_000)
    want = math.erf(1.6449 * 0.5 / math.sqrt(2))  # of the 90 % interval, half as wide
    assert covered(probability_ranks(samples, y, rng), 0.9).mean() == pytest.approx(want, abs=0.02)


def test_ranks_with_ties_are_uniform():
    """Mostly zeros, as rain is: members and observation share the same law."""
    rng = np.random.default_rng(5)
    samples = np.where(rng.random((9, 50_000)) < 0.7, 0.0, 1.0)
    y = np.where(rng.random(50_000) < 0.7, 0.0, 1.0)
    ranks = probability_ranks(samples, y, rng)
    shares = np.histogram(ranks, np.linspace(0, 1, 6))[0] / y.size
    np.testing.assert_allclose(shares, 0.2, atol=0.01)


def test_flatness_of_dependent_ranks_keeps_its_level():
    """Within a unit all ranks move together; the plain chi-square would reject nearly always."""
    rng = np.random.default_rng(6)
    p_values = []
    for _ in range(300):
        shares = rng.dirichlet(np.full(5, 4.0), size=20)
        p_values.append(flatness(np.stack([rng.multinomial(500, p) for p in shares])).p_value)
    rejected = np.mean(np.array(p_values) < 0.05)
    assert rejected < 0.12
    skewed = np.array([0.4, 0.25, 0.15, 0.1, 0.1])
    counts = np.stack([rng.multinomial(500, p) for p in rng.dirichlet(20 * skewed, size=20)])
    assert flatness(counts).p_value < 1e-3


def test_flatness_needs_two_units():
    one = flatness(np.array([[10.0, 20.0]]))
    assert np.isnan(one.p_value)
    np.testing.assert_allclose(one.share, [1 / 3, 2 / 3])


def test_pooled_blocks_are_means_and_unobserved_blocks_are_nan():
    field = np.arange(20.0).reshape(4, 5, 1)
    field[3, 3] = np.nan
    means = pooled(field, 2)
    assert means.shape == (2, 2, 1)
    assert means[0, 0, 0] == np.mean([0, 1, 5, 6])
    assert np.isnan(means[1, 1, 0])


def test_contingency_by_hand():
    forecast = np.array([[2.0, 2.0], [0.0, 0.0]])[..., None]
    observed = np.array([[2.0, 0.0], [2.0, np.nan]])[..., None]
    counts = contingency(forecast >= 1.0, observed, 1.0)
    assert [float(counts[key][0]) for key in ("hits", "misses", "false_alarms")] == [1, 1, 1]
    # CSI 1/3, POD 1/2, FAR 1/2
    csi = counts["hits"] / sum(counts.values())
    assert csi[0] == pytest.approx(1 / 3)


def test_fractions_skill_of_a_shifted_right_fraction_is_one():
    observed = np.zeros((4, 4, 1))
    observed[0, 0] = 5.0
    shifted = np.roll(observed, 1, axis=1) >= 1.0
    error, reference = fractions_skill(shifted.astype(float), observed, 1.0, side=2)
    assert error[0] == 0
    assert reference[0] > 0
    error, reference = fractions_skill(shifted.astype(float), observed, 1.0, side=1)
    assert 1 - error[0] / reference[0] == 0


def test_spectrum_of_a_wave_has_one_peak():
    x = np.arange(32)
    wave = np.cos(2 * np.pi * 5 * x / 32)[None, :].repeat(32, axis=0)[..., None]
    spectrum = radial_spectrum(wave)
    assert spectrum.shape == (16, 1)
    assert spectrum[:, 0].argmax() == 4  # wavenumber 5
    assert spectrum[4, 0] > 1e6 * np.delete(spectrum[:, 0], 4).max()


def test_reliability_counts_by_hand():
    probability = np.array([0.1, 0.1, 0.9, 0.9])
    observed = np.array([0.0, 2.0, 2.0, np.nan])
    counts = reliability_counts(probability, observed, 1.0, (0.0, 0.5, 1.0))
    np.testing.assert_allclose(counts, [[2, 1], [0.2, 0.9], [1, 1]])

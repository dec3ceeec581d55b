"""A forecast beside others, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest

from sdevid.evaluate.statistics.paired import lead_by_frame
from sdevid.evaluate.statistics.quality import decibels

CLIPS, FRAMES = 120, 3
SOURCES = [f"film {k // 4}" for k in range(CLIPS)]


def errors(scales, seed=0):
    """Squared errors of clips that share a part with the others of their film."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.exponential(size=CLIPS // 4), 4)[:, None]
    return (0.5 * shared + 0.5 * rng.exponential(size=(CLIPS, FRAMES))) * scales


def test_lead_is_that_over_the_better_baseline_at_each_frame():
    own = errors(np.array([0.01, 0.02, 0.04]))
    others = [errors(0.02, 1), errors(np.array([0.1, 0.005, 0.1]), 2)]
    leads = lead_by_frame(own, others, SOURCES, decibels)
    best = np.minimum(*(one.mean(axis=0) for one in others))
    expected = decibels(own.mean(axis=0)) - decibels(best)
    assert [lead.mean for lead in leads] == pytest.approx(expected)
    assert leads[0].interval[0] > 0 > leads[1].interval[1]  # surely ahead, surely behind


def test_lead_over_itself_is_nothing_and_pairs_cancel():
    own = errors(0.02)
    for lead in lead_by_frame(own, [own], SOURCES, decibels):
        assert (lead.mean, *lead.interval) == (0, 0, 0)


def test_interval_is_over_films_not_clips():
    shared = np.repeat(np.random.default_rng(0).normal(size=CLIPS // 4), 4)[:, None]
    own, still = shared + np.zeros((CLIPS, 1)), np.zeros((CLIPS, 1))
    by_film = lead_by_frame(own, [still], SOURCES, np.asarray)[0]
    by_clip = lead_by_frame(own, [still], [str(k) for k in range(CLIPS)], np.asarray)[0]
    assert by_film.standard_error == pytest.approx(2 * by_clip.standard_error, rel=0.2)


def test_clips_without_a_figure_are_left_out():
    own = np.array([[1.0], [np.nan], [3.0]])
    lead = lead_by_frame(own, [np.zeros((3, 1))], ["a", "b", "c"], np.asarray)[0]
    assert lead.mean == 2

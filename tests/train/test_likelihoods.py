"""Likelihoods with weights of their own train through the whole engine."""

import json

import numpy as np
import pytest


@pytest.mark.parametrize("likelihood", ["two_part", "gaussian"])
def test_fitted_likelihood_trains(make_config, train_here, likelihood):
    observation = {"likelihood": likelihood, "fit_scale": True}
    config = make_config(max_clips=16, observation=observation)
    assert train_here(config) == "done"
    lines = (config.run_dir / "metrics.jsonl").read_text().splitlines()
    assert np.isfinite([json.loads(line)["loss"] for line in lines]).all()

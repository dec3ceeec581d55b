"""The same seed at finer rates: the same video without drift, nearly the same one with some."""

from pathlib import Path
from types import SimpleNamespace

import factories
import pytest
import torch

from sdevid.config import parse
from sdevid.evaluate.context import EvalContext, EvalOptions
from sdevid.evaluate.metrics import refinement
from sdevid.objectives import build_model

SMALL = factories.settings(
    sde={"latent_size": 3, "content_size": 4, "hidden": 16, "steps_per_frame": 1}
)


def distances(drift):
    config = parse(SMALL)
    torch.manual_seed(0)
    model = build_model(config).eval()
    with torch.no_grad():
        model.prior.drift.last.weight.normal_(std=drift)
    nothing = SimpleNamespace(dataset={})
    options = EvalOptions(Path("unused"))
    context = EvalContext(model, config, nothing, nothing, range(0), options)
    scores = refinement.at_finer_rates(context)["rates"]
    assert [entry["fps"] for entry in scores.values()] == [16, 32]
    return [entry["distance"]["mean"] for entry in scores.values()]


def test_without_drift_the_frames_are_the_same():
    assert max(distances(0.0)) < 1e-3  # the rounding of pixels


@pytest.mark.parametrize("drift", [0.5, 1.0])
def test_steeper_drift_leaves_a_wider_gap_between_rates(drift):
    twice, four_times = distances(drift)
    assert distances(0.0)[0] < distances(0.1)[0] < twice < four_times < 1

"""Likelihoods are the densities that they name, of anything with batch and time first."""

import pytest
import torch
from torch.distributions import Laplace, Normal

from sdevid.config import ObservationConfig
from sdevid.models.likelihood import build_likelihood


@pytest.mark.parametrize(("name", "law"), [("laplace", Laplace), ("gaussian", Normal)])
@pytest.mark.parametrize("values", [(1, 5, 5), (7,), (2, 3, 4, 5)])
def test_likelihood_log_prob_is_the_laws(name, law, values):
    decoded, target = torch.rand(2, 3, 4, *values)
    want = law(decoded, 0.3).log_prob(target).flatten(2).sum(2)
    likelihood = build_likelihood(ObservationConfig(likelihood=name, scale=0.3))
    torch.testing.assert_close(likelihood.log_prob(decoded, target), want)

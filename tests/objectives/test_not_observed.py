"""NaN in a clip was not observed: neither the likelihood nor what is encoded depends on it."""

import factories
import pytest
import torch

from sdevid import objectives
from sdevid.config import ObservationConfig, parse
from sdevid.models.likelihood import build_likelihood
from sdevid.objectives.clip_objective import Clips

SMALL = factories.settings(
    frame_size=8,
    sequence_length=5,
    sde={"latent_size": 2, "content_size": 2, "hidden": 8, "depth": 1},
    encoder={"channels": 4, "features": 8},
    observation={"max_context": 2},
)


@pytest.mark.parametrize("name", ["gaussian", "laplace"])
def test_likelihood_is_that_of_the_values_seen(name):
    likelihood = build_likelihood(ObservationConfig(likelihood=name))
    torch.manual_seed(0)
    decoded, target = torch.rand(2, 3, 1, 4, 4, requires_grad=True), torch.rand(2, 3, 1, 4, 4)
    holes = torch.rand_like(target) < 0.3
    result = likelihood.log_prob(decoded, target.masked_fill(holes, torch.nan))
    each = likelihood.log_prob(decoded.reshape(2, 3 * 16, 1), target.reshape(2, 3 * 16, 1))
    want = each.masked_fill(holes.reshape(2, 48), 0.0).view(2, 3, 16).sum(2)
    torch.testing.assert_close(result, want)
    result.sum().backward()
    assert not decoded.grad[holes].any()
    assert decoded.grad[~holes].all()


@pytest.mark.parametrize("kind", ["latent_sde", "sde_matching", "follmer"])
def test_missing_frame_leaves_loss_and_gradients_finite(kind):
    torch.manual_seed(0)
    config = parse(SMALL | {"model_type": kind})
    clip_objective = objectives.build(config)
    video = torch.rand(6, 5, 8, 8, 1)
    video[:, 2], video[1, :, :3], video[2, 0] = torch.nan, torch.nan, torch.nan
    ticks, serial = config.frame_ticks(5).expand(6, -1), torch.arange(6)
    clip_objective(video, ticks, serial, 1.0)["loss"].backward()
    grads = [
        parameter.grad for parameter in clip_objective.parameters() if parameter.grad is not None
    ]
    assert grads
    assert all(grad.isfinite().all() for grad in grads)


def test_missing_frame_is_never_observed():
    torch.manual_seed(0)
    config = parse(SMALL)
    clip_objective = objectives.build(config)
    ticks, serial = config.frame_ticks(5).expand(2, -1), torch.arange(2)
    video = torch.rand(2, 5, 8, 8, 1)
    video[:, 0] = torch.nan
    clips = clip_objective.encode(Clips(video, ticks, serial, context=1))
    free = clip_objective.encode(Clips(video, ticks, serial, context=0))
    torch.testing.assert_close(clips.context.summary, free.context.summary)

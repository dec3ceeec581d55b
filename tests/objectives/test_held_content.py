"""Content that may not speak at first: the posterior's w is noise, and the state learns alone."""

from __future__ import annotations

import factories
import pytest
import torch
from torch.testing import assert_close

from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.objectives import build
from sdevid.objectives.clip_objective import Clips
from sdevid.objectives.history_objective import HistoryObjective
from sdevid.types import frame_ticks

FRAMES = 5


def objective(kind: str, progress: float) -> HistoryObjective:
    settings = factories.settings(
        sequence_length=FRAMES, model_type=kind, sde={"content_from": 0.2, "content_size": 2}
    )
    clip_objective = build(parse(settings))
    torch.manual_seed(0)
    factories.shake(clip_objective)
    clip_objective.progress.fill_(progress)
    return clip_objective


def clips(seed: int) -> Clips:
    torch.manual_seed(seed)
    video = torch.randint(0, 256, (4, FRAMES, 16, 16, 1), dtype=torch.uint8)
    return Clips(video, frame_ticks(FRAMES, 8.0).expand(4, -1), torch.arange(4), context=0)


@pytest.mark.parametrize("kind", ["latent_sde", "sde_matching", "follmer"])
def test_held_content_is_of_no_clip_and_then_of_each(kind):
    def content(progress: float, seed: int) -> torch.Tensor:
        clip_objective = objective(kind, progress)
        drawn: list[torch.Tensor] = []
        decode = clip_objective.model.decode
        clip_objective.model.decode = lambda z, w, *rest: (drawn.append(w), decode(z, w, *rest))[1]
        clip_objective.clip_terms(clips(seed))
        return drawn[0].detach()

    assert_close(content(0.1, 1), content(0.1, 2), rtol=0, atol=0)
    assert float((content(0.2, 1) - content(0.2, 2)).abs().max()) > 1e-3


def test_held_content_teaches_its_prior_and_not_its_posterior():
    clip_objective = objective("latent_sde", 0.0)
    clip_objective.clip_terms(clips(1))["kl_content"].sum().backward()
    model = clip_objective.model
    untaught = [p.grad for p in model.start_posterior.content.parameters()]
    assert all(gradient is None or not gradient.any() for gradient in untaught)
    assert any(p.grad.any() for p in model.start_prior.content.parameters())


def test_content_of_particles_cannot_be_held():
    with pytest.raises(UserError, match=r"content_from is 0\.2, but sde\.latent is particles"):
        parse({"sde": {"latent": "particles", "content_from": 0.2}})

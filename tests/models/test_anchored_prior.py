"""A prior that sees its path's start, or the state at a later frame."""

from __future__ import annotations

from typing import Any

import factories
import pytest
import torch
from torch.testing import assert_close

from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.models.history_model import Context
from sdevid.models.latent_sde import LatentSDE
from sdevid.models.sampling import SamplerConfig
from sdevid.models.temporal import History
from sdevid.objectives import build_model
from sdevid.types import frame_ticks

SDE = factories.MAP | {"anchor": True}
CLIPS = 3


def settings(**changes: Any) -> dict[str, Any]:
    return factories.settings(sde=SDE) | changes


def model(**sde: Any) -> LatentSDE:
    torch.manual_seed(0)
    built = build_model(parse(settings(sde=SDE | sde)))
    assert isinstance(built, LatentSDE)
    built.prior.requires_grad_(False)
    return factories.shake(built, 0.3)


def context() -> Context:
    torch.manual_seed(1)
    return Context(History(torch.randn(CLIPS, 16, 16), torch.zeros(CLIPS, 0, 16, 16)))


def rolled(every: int | None, cuts: list[int]) -> torch.Tensor:
    """Roll the prior on through five frames, asked for in pieces that end at the `cuts`."""
    prior = model(anchor_every=every)
    torch.manual_seed(2)
    w, z = torch.randn(CLIPS, 2), torch.randn(CLIPS, 3, 4, 4)
    move = prior.transition(w, context(), SamplerConfig(0))
    ticks, states = frame_ticks(6).expand(CLIPS, -1), []
    for first, last in zip([0, *cuts], [*cuts, 5], strict=True):
        path = move(z, ticks[:, first : last + 1])
        states.append(path.states)
        z = path.states[:, -1]
    return torch.cat(states, dim=1)


@torch.no_grad()
def test_the_drift_sees_how_far_the_start_is():
    prior = model().prior
    torch.manual_seed(3)
    z, start, w = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.randn(2, 2)
    known = prior.conditions(w, torch.randn(2, 16, 16))
    here = prior(z, prior.anchored(known, z))[0]
    assert_close(here, prior(z, known)[0])  # no anchor is one that lies where the state is
    assert float((prior(z, prior.anchored(known, start))[0] - here).abs().max()) > 1e-3


@torch.no_grad()
def test_the_anchor_stays_from_piece_to_piece_or_is_renewed_after_so_many_frames():
    whole, renewed = rolled(None, []), rolled(2, [])
    assert_close(rolled(None, [1, 4]), whole)
    assert_close(rolled(2, [1, 4]), renewed)
    assert_close(renewed[:, :2], whole[:, :2])
    assert float((renewed[:, 2:] - whole[:, 2:]).abs().max()) > 1e-4
    prior, ticks = model(), frame_ticks(6).expand(CLIPS, -1)
    torch.manual_seed(2)
    w = torch.randn(CLIPS, 2)
    again = prior.transition(w, context(), SamplerConfig(0))(whole[:, 1], ticks[:, 2:5])
    assert_close(again.states[:, :2], renewed[:, 2:4])  # a path that begins at the second frame


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sde": SDE | {"anchor_every": 6}}, r"sde\.anchor_every is 6, but a clip has 6 frames"),
        ({"sde": SDE | {"anchor": False, "anchor_every": 2}}, r"sde\.anchor is false"),
        ({"model_type": "sde_matching"}, r"sde\.anchor"),
        ({"model_type": "follmer"}, r"sde\.anchor"),
        ({"sde": factories.MAP | {"friction_start": 0.1}}, r"friction_start is 0\.1, but sde"),
    ],
)
def test_what_does_not_go_with_an_anchor_or_an_order_is_named(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(settings(**changes))

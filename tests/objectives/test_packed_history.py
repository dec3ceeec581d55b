"""With `encoder.pack` the prior's history is that of the padded encoder, whatever the prefix."""

from __future__ import annotations

import factories
import pytest
import torch

from sdevid import objectives
from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.types import Batch

AHEAD = {"max_context": 3, "ends_fraction": 0.3, "keyframes_fraction": 0.3}


def objective_and_batch(*, pack: bool):
    """An objective and eight clips, one of them with a missing frame."""
    changes = {"sde": factories.MAP, "observation": AHEAD, "encoder": {"pack": pack}}
    torch.manual_seed(0)
    objective = factories.shake(objectives.build(parse(factories.settings(**changes))))
    pixels, ticks, serial = factories.clips(8)
    video = pixels.float() / 255
    video[0, 0] = torch.nan
    names = tuple("abcdefgh")
    return objective, Batch(video, ticks, serial, names, names)


def loss_and_gradients(*, pack: bool, on_host: bool = True):
    objective, batch = objective_and_batch(pack=pack)
    if on_host:
        with objective.reading(batch):
            loss = objective(batch.video, batch.ticks, batch.serial, kl_weight=0.5)["loss"]
    else:
        loss = objective(batch.video, batch.ticks, batch.serial, kl_weight=0.5)["loss"]
    loss.backward()
    gradients = {n: p.grad for n, p in objective.named_parameters() if p.grad is not None}
    return loss, gradients


@pytest.mark.parametrize("on_host", [True, False])
def test_loss_and_gradients_of_packed_clips_are_those_of_padded_ones(on_host):
    padded, packed = loss_and_gradients(pack=False), loss_and_gradients(pack=True, on_host=on_host)
    torch.testing.assert_close(packed, padded, rtol=1e-3, atol=1e-3)


def test_clips_of_a_batch_have_several_lengths_which_the_host_counts():
    objective, batch = objective_and_batch(pack=True)
    with objective.reading(batch):
        counted = objective.num_observed
        observed = objective.observed(batch.serial, batch.video.shape[1], None)
    assert len(set(counted)) > 2
    present = ~batch.video.isnan().flatten(2).all(2)
    assert counted == (observed & present).sum(1).tolist()
    assert objective.num_observed is None


@pytest.mark.parametrize(
    ("encoder", "sde", "words"),
    [
        ({"pack": True, "causal": True}, {}, "pack is true, but causal too"),
        ({"attention": "xformers"}, {}, "serves packed clips alone"),
    ],
)
def test_settings_that_do_not_go_with_packs_are_refused(encoder, sde, words):
    with pytest.raises(UserError, match=words):
        parse(factories.settings(encoder=encoder, sde=sde))

"""What the prior is shown in training: frames of any kind, captions, clips at any times."""

import factories
import pytest
import torch

from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.models.text import as_bytes
from sdevid.objectives import build
from sdevid.types import frame_ticks

SMALL = factories.settings(
    sequence_length=8,
    observation={"free_fraction": 0.25, "ends_fraction": 0.25, "keyframes_fraction": 0.25},
    text={"encoder": "bytes", "layers": 1, "length": 12, "drop": 0.25},
)
VECTOR = factories.VECTOR
KINDS = {
    "latent_sde": {"sde": VECTOR},
    "latent_sde map": {"sde": VECTOR | {"latent": "map"}},
    "sde_matching": {"model_type": "sde_matching", "sde": VECTOR},
    "sde_matching map": {"model_type": "sde_matching", "sde": VECTOR | {"latent": "map"}},
    "follmer": {"model_type": "follmer", "sde": VECTOR},
    "follmer map": {"model_type": "follmer", "sde": VECTOR | {"latent": "map"}},
}


def objective(kind="latent_sde", **more):
    torch.manual_seed(0)
    clip_objective = build(parse(SMALL | KINDS[kind] | more))
    return factories.shake(clip_objective)


def clips(count):
    torch.manual_seed(1)
    video = torch.randint(0, 256, (count, 8, 16, 16, 1), dtype=torch.uint8)
    ticks = frame_ticks(8) * torch.tensor([[1], [2]]).repeat(count // 2 + 1, 1)[:count]
    ticks = ticks + torch.tensor([0, 700, -700, 0, 300, 0, 0, 0])
    return video, ticks, torch.arange(count)


def captions(count):
    return as_bytes([["a disc", "", "runs"][k % 3] for k in range(count)], 12)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns_from_frames_ahead_and_captions(kind):
    clip_objective = objective(kind)
    clip_objective(*clips(24), 1.0, None, *captions(24))["loss"].backward()
    still = [
        n
        for n, p in clip_objective.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert still == []


@pytest.mark.parametrize("kind", KINDS)
def test_clips_terms_do_not_depend_on_its_batch(kind):
    clip_objective = objective(kind)
    video, ticks, serial = clips(12)
    text = captions(12)
    together = clip_objective.terms(video, ticks, serial, None, text)
    for k in (1, 4, 7):
        one = slice(k, k + 1)
        alone = clip_objective.terms(
            video[one], ticks[one], serial[one], None, type(text)(*(x[one] for x in text))
        )
        for name in together.keys() - {"diffusion"}:
            torch.testing.assert_close(alone[name][0], together[name][k], rtol=1e-4, atol=2e-3)


def test_captions_move_the_start_and_blank_ones_count_as_none():
    clip_objective = objective()
    video, ticks, serial = clips(3)
    with_text = clip_objective.terms(video, ticks, serial, 0, as_bytes(["left"] * 3, 12))
    without = clip_objective.terms(video, ticks, serial, 0, as_bytes([""] * 3, 12))
    none = clip_objective.terms(video, ticks, serial, 0)
    assert (with_text["kl_initial"] - without["kl_initial"]).abs().min() > 1e-4
    torch.testing.assert_close(without["kl_initial"], none["kl_initial"])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"observation": {"free_fraction": 0.8, "ends_fraction": 0.4}}, "at most 1 together"),
        ({"irregular_fraction": 0.5}, "irregular_fraction is 0.5"),
        ({"matching": {"frames": 2}, "consistency": {"warp": True}}, "matching.frames is 2"),
    ],
)
def test_settings_that_contradict_each_other_are_named(settings, named):
    with pytest.raises(UserError, match=named):
        parse(settings)

"""Where a control leads layers: their places in later frames, and the push that puts them there."""

from __future__ import annotations

import factories
import torch
from torch.testing import assert_close

from sdevid.config import parse
from sdevid.models.aim import aims, followed, pull, straightened, tracks
from sdevid.models.carried_frame import CarriedFrame, folded
from sdevid.models.layers import shares

SIDE, SIDES = 32, (4, 4)


def carried() -> CarriedFrame:
    encoder = {"causal": True, "skip": True, "carried_layers": 2}
    sde = {"latent": "map", "order": 2, "latent_size": 3}
    return CarriedFrame(parse(factories.settings(encoder=encoder, sde=sde)))


def squares(*corners: tuple[int, int]) -> torch.Tensor:
    """One frame with a square of five pixels, and one that fades to its right, at (x, y)."""
    frame = torch.zeros(1, 1, SIDE, SIDE)
    for number, (x, y) in enumerate(corners):
        frame[:, :, y : y + 5, x : x + 5] += 1.0 - 0.15 * number * torch.arange(5)
    return frame


def test_layers_are_followed_far_from_where_they_were():
    frames = torch.stack([squares((3 + 2 * t, 4), (22, 25 - 3 * t)) for t in range(7)], dim=1)
    layers = shares(frames[:, 0], 2)[:, :, None] * frames[:, 0, None]
    pixel = 2 / SIDE
    left = int(layers[0, :, 0, :, : SIDE // 2].sum((1, 2)).argmax())
    found = followed(frames, layers)[0, 6, [left, 1 - left]] / pixel
    assert_close(found, torch.tensor([[12.0, 0.0], [0.0, -18.0]]))


def test_the_push_puts_every_layer_at_its_place_by_the_end_of_the_step():
    torch.manual_seed(0)
    observed = squares((3, 4), (13, 12))  # both have values in the cells between them
    frames = torch.stack([observed, squares((5, 5), (12, 15))], dim=1)
    for dt in (1.0, 0.5):
        known = tracks(frames, observed, 2)
        aim = aims(known, carried(), SIDES, torch.full((1, 1), dt))[:, 0]
        z, drift = 0.2 * torch.randn(1, 6, *SIDES), 0.1 * torch.randn(1, 3, *SIDES)
        v = z[:, 3:5] + (drift[:, :2] + pull(z, drift, aim)) * dt
        reached = torch.einsum("blhw,bahw->bla", aim[:, :2], z[:, :2] + v * dt)
        want = aim[:, 4:8, 0, 0].view(1, 2, 2)
        assert_close(
            want[0].norm(dim=1).sort().values * 8, torch.tensor([5**0.5, 10**0.5]), atol=0.3, rtol=0
        )
        assert_close(reached, want, atol=0.02, rtol=0)


def test_a_path_that_turns_back_at_a_wall_is_straight_behind_it():
    room, middle = torch.full((1, 1, 2), 0.6), torch.tensor([[[0.3, -0.25]]])
    straight = torch.arange(8)[None, :, None, None] * torch.tensor([0.15, -0.2])
    found = folded(middle[:, None] + straight, room[:, None]) - middle[:, None]
    assert bool(((found + middle[:, None]).abs() <= 0.6).all())
    assert_close(straightened(found, middle, room), straight, atol=1e-5, rtol=0)


def test_an_empty_frame_and_a_step_of_no_time_push_nothing():
    frames = squares((3, 4), (13, 12)).expand(2, 2, 1, SIDE, SIDE)
    observed = torch.cat([frames[:1, 0], torch.zeros(1, 1, SIDE, SIDE)])
    known = tracks(frames, observed, 2)
    aim = aims(known, carried(), SIDES, torch.tensor([[0.0], [1.0]]))[:, 0]
    z = torch.randn(2, 6, *SIDES)
    assert not pull(z, z[:, :3], aim).any()

"""The last observed frame in layers: whole moves, shares, and video without such a frame."""

from __future__ import annotations

from typing import Any

import factories
import pytest
import torch
from torch.testing import assert_close

from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.models.carried_frame import CarriedFrame, carry, clusters, within
from sdevid.models.decoder import FrameDecoder
from sdevid.models.encoder import LastFrame

SIDE = 16
SDE = {"latent": "map", "latent_size": 3, "content_size": 4, "hidden": 16}
ENCODER = {"causal": True, "skip": True, "carried_layers": 2}


def settings(**changes: Any) -> dict[str, Any]:
    return factories.settings(encoder=ENCODER, sde=SDE) | changes


def decoder() -> FrameDecoder:
    return factories.shake(FrameDecoder(parse(settings()))).eval()


def carried_of(drawn: FrameDecoder) -> CarriedFrame:
    assert drawn.carried is not None
    return drawn.carried


def skip_of(frame: torch.Tensor, observed: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Maps as the encoder gives them: the frame with a channel of ones, then its features."""
    torch.manual_seed(2)
    features = torch.randn(len(frame), 16, SIDE // 2, SIDE // 2)
    maps = (torch.cat([frame, torch.ones_like(frame[:, :1])], dim=1), features)
    return tuple(observed.view(-1, 1, 1, 1) * each for each in maps)


def two_squares() -> torch.Tensor:
    """One frame with a square at the upper left and one at the lower right."""
    frame = torch.zeros(1, 1, SIDE, SIDE)
    frame[:, :, 2:5, 2:5] = 1
    frame[:, :, 10:13, 9:12] = 1
    return frame


def test_a_move_by_whole_pixels_shifts_each_layer_and_leaves_nothing_behind():
    layers = torch.rand(3, 2, 1, SIDE, SIDE)
    moved = torch.tensor([[[2, 0], [0, -3]]]).expand(3, -1, -1) * (2 / SIDE)
    carried = carry(layers, moved)
    assert_close(carried[:, 0, :, :, 2:], layers[:, 0, :, :, :-2], atol=1e-5, rtol=0)
    assert_close(carried[:, 1, :, :-3], layers[:, 1, :, 3:], atol=1e-5, rtol=0)
    assert float(carried[:, 0, :, :, :2].abs().max()) < 1e-5


def test_two_squares_are_two_layers():
    centres = clusters(two_squares()[:, 0], 2)
    middle = torch.tensor([[[3.5, 3.5], [10.5, 11.5]]]) * (2 / SIDE) - 1
    nearer = torch.cdist(centres, middle).argmin(2).flatten().tolist()
    assert sorted(nearer) == [0, 1]
    assert_close(centres[:, torch.tensor(nearer).argsort()], middle, atol=1e-3, rtol=0)


@torch.no_grad()
def test_layers_add_up_to_the_frame_and_a_cell_moves_its_own():
    carried = carried_of(decoder())
    frame = two_squares()
    shares = carried.shares(frame)
    assert_close(shares.sum(1), torch.ones(1, SIDE, SIDE))
    carried.motion.weight.zero_()
    carried.motion.weight[0, 0], carried.motion.bias[:] = 2 / SIDE, 0.0  # of channel 0, in pixels
    z = torch.zeros(1, 3, *parse(settings()).map_shape)
    z[:, 0, : z.shape[2] // 2, : z.shape[3] // 2] = 2.0  # where the first square is
    moved = carried.displacement(z, shares[:, :, None] * frame[:, None])[0] * SIDE / 2
    assert_close(moved.sort(0).values, torch.tensor([[0.0, 0.0], [2.0, 0.0]]), atol=0.1, rtol=0)


def test_a_layer_stays_in_the_picture():
    places = within(torch.tensor([0.0, 0.5, -0.6, 5.0, -1e9]))
    assert_close(places[:2], torch.tensor([0.0, 0.5]), atol=5e-3, rtol=0)
    assert bool((places.abs() <= 0.75).all())


@torch.no_grad()
def test_clips_without_an_observed_frame_are_drawn_and_others_carried():
    drawn = decoder()
    z, w = torch.randn(2, 3, 3, *parse(settings()).map_shape), torch.randn(2, 4)
    frame = two_squares().expand(2, -1, -1, -1)
    mixed = drawn(z, w, LastFrame(skip_of(frame, torch.tensor([1.0, 0.0]))))
    assert_close(mixed[1:], drawn(z[1:], w[1:], None), atol=1e-6, rtol=0)
    seen = drawn(z, w, LastFrame(skip_of(0.5 * frame, torch.tensor([1.0, 1.0]))))
    assert_close(mixed[0].sum(), 2 * seen[0].sum(), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"encoder": ENCODER | {"skip": False}}, r"carried_layers is 2, but encoder\.skip is"),
        ({"sde": SDE | {"latent": "vector"}}, r"encoder\.carried_layers is 2, but sde\.latent"),
    ],
)
def test_layers_that_cannot_be_carried_name_the_setting(changes, name):
    with pytest.raises(UserError, match=name):
        parse(settings(**changes))


def test_a_carried_frame_refuses_the_warp_head():
    with pytest.raises(UserError, match=r"encoder\.carried_layers is 2 and consistency\.warp"):
        FrameDecoder(parse(settings(consistency={"warp": True})))

"""The last observed frame in layers: whole moves, shares, and video without such a frame."""

from __future__ import annotations

from typing import Any

import factories
import pytest
import torch
from torch.testing import assert_close

from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.models.carried_frame import CarriedFrame, carry
from sdevid.models.decoder import FrameDecoder
from sdevid.models.encoder import LastFrame
from sdevid.models.layers import clusters, middles, shares, velocities, weights
from sdevid.models.reflection import reflected
from sdevid.models.sampling import Conditioning
from sdevid.models.temporal import History
from sdevid.objectives import build_model

SIDE = 16
SDE = {"latent": "map", "order": 2, "latent_size": 3, "content_size": 4, "hidden": 16}
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
    carried, frame = carried_of(decoder()), two_squares()
    parts = shares(frame, 2)
    assert_close(parts.sum(1), torch.ones(1, SIDE, SIDE))
    z = torch.zeros(1, 3, *parse(settings()).map_shape)
    pixel = z.shape[3] / SIDE  # in cells
    z[:, 0, : z.shape[2] // 2, : z.shape[3] // 2] = 2 * pixel  # where the first square is
    moved = carried.displacement(z, parts[:, :, None] * frame[:, None])[0] * SIDE / 2
    assert_close(moved.sort(0).values, torch.tensor([[0.0, 0.0], [2.0, 0.0]]), atol=0.1, rtol=0)


def test_velocities_are_those_of_the_layers_in_any_unit_of_time():
    frame, before = two_squares(), torch.zeros(1, 1, SIDE, SIDE)
    before[:, :, 3:6, 1:4] = 1  # each square came by one pixel: (1, -1) and (-1, 0)
    before[:, :, 10:13, 10:13] = 1
    want = torch.tensor([[1.0, -1.0], [-1.0, 0.0]]) * 4 / SIDE  # cells
    for since in (1.0, 0.5):
        got = velocities(before, frame, torch.tensor([since]), 2, (4, 4))[0]
        assert_close(got[:, 0, 0], want[0] / since, atol=0.01, rtol=0)
        assert_close(got[:, 3, 3], want[1] / since, atol=0.01, rtol=0)
    assert not velocities(before, frame, torch.zeros(1), 2, (4, 4)).any()  # of a single frame


@torch.no_grad()
def test_a_path_starts_where_the_frame_is_as_fast_as_its_layers_are():
    model = factories.shake(build_model(parse(settings()))).eval()
    frames = torch.zeros(1, 2, 1, SIDE, SIDE)
    frames[:, 0, :, 4:8, 4:8] = frames[:, 1, :, 4:8, 5:9] = 1
    ticks = model.config.frame_ticks(3)[None]
    context, _ = model.encode_context(ticks[:, 2:], Conditioning(frames, ticks[:, :2]), False)
    start = model.start_prior.continued(context.history)[1]
    side = model.config.map_shape[1]
    assert_close(start.mean[:, :2], torch.zeros_like(start.mean[:, :2]))
    found = start.mean[0, 3:5].mean((1, 2)) * SIDE / side  # velocities of both axes, in pixels
    assert_close(found, torch.tensor([1.0, 0.0]), atol=0.3, rtol=0)


@torch.no_grad()
def test_a_layer_turns_back_where_it_would_leave_the_picture():
    carried, frame = carried_of(decoder()), two_squares()
    layers = shares(frame, 2)[:, :, None] * frame[:, None]
    room = carried.room(layers)
    z = torch.zeros(20, 3, *parse(settings()).map_shape)
    z[:, 0] = torch.linspace(-9, 9, 20)[:, None, None]  # cells
    moved = carried.displacement(z, layers.expand(1, -1, -1, -1, -1))
    place = middles(layers[:, :, 0]) + moved
    assert bool((place.abs() <= room + 1e-5).all())
    assert float(moved[:, :, 0].std()) > 0.2


@torch.no_grad()
def test_the_law_behind_a_wall_is_that_before_it_mirrored():
    model = factories.shake(build_model(parse(settings(sde=SDE | {"friction_start": 0.1}))), 0.3)
    skip = skip_of(two_squares(), torch.ones(1))
    sides = model.config.map_shape
    walls = model.decoder.carried.walls(skip, sides)
    history = History(torch.randn(1, 16, 16), torch.zeros(1, 0, 16, 16), last=LastFrame(skip))
    z, w = torch.randn(1, 6, *sides), torch.randn(1, 4)
    mirrored = z.clone()
    low, room = walls[:, :1], walls[:, 6:7]
    mirrored[:, :1] = 2 * (2 * room - low) - z[:, :1]  # at the right wall
    mirrored[:, 3:4] = -z[:, 3:4]
    conditions = model.conditions(w, history, z)
    (drift, g), (back, g_back) = (model.prior(each, conditions) for each in (z, mirrored))
    turned = torch.cat([-back[:, :1], back[:, 1:]], dim=1)
    assert_close(turned, drift, atol=1e-5, rtol=1e-4)
    assert_close(g_back, g, atol=1e-5, rtol=1e-4)
    assert float(drift.std()) > 1e-2
    free = model.decoder.carried.walls(skip_of(two_squares(), torch.zeros(1)), sides)
    assert_close(
        reflected(z, free)[0], z, atol=1e-3, rtol=0
    )  # without an observed frame there are no walls


def test_the_reach_is_learnt_as_what_places_hardly_ever_leave():
    carried = carried_of(decoder())
    places = torch.rand(64, 40, 2, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    optimizer = torch.optim.Adam([carried.reach], 5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        carried.misfit(places, torch.ones(64, 40, dtype=torch.bool)).mean().backward()
        optimizer.step()
    assert_close(carried.reach.detach(), torch.full((2,), 0.49), atol=0.01, rtol=0)
    layers = two_squares()[:, None] * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1)
    assert_close(carried.room(layers)[0, 1], carried.reach.detach())  # of an empty layer
    assert not carried.misfit(places, torch.zeros(64, 40, dtype=torch.bool)).any()


@torch.no_grad()
def test_velocities_of_cells_move_each_layer_as_measured():
    frame, before = two_squares(), two_squares().roll((1, -2), (2, 3))
    parts = shares(frame, 2)
    weight = weights(parts[:, :, None] * frame[:, None], (2, 2))  # layers share cells
    found = velocities(before, frame, torch.ones(1), 2, (2, 2)).flatten(2)
    moved = torch.einsum("blc,bac->bla", weight, found) * SIDE / 2
    assert_close(moved[0], torch.tensor([[2.0, -1.0]]).expand(2, -1), atol=0.02, rtol=0)


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
        ({"sde": SDE | {"order": 1}}, r"encoder\.carried_layers is 2, but sde\.order is 1"),
        ({"sde": SDE | {"latent_size": 1}}, r"carried_layers is 2, but sde\.latent_size is 1"),
        ({"encoder": ENCODER | {"causal": False}}, r"carried_layers is 2, but encoder\.causal"),
        ({"sde": SDE | {"anchor": True}}, r"carried_layers is 2, but sde\.anchor is true"),
    ],
)
def test_layers_that_cannot_be_carried_name_the_setting(changes, name):
    with pytest.raises(UserError, match=name):
        parse(settings(**changes))


def test_a_carried_frame_refuses_the_warp_head():
    with pytest.raises(UserError, match=r"encoder\.carried_layers is 2 and consistency\.warp"):
        FrameDecoder(parse(settings(consistency={"warp": True})))

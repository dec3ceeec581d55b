"""Things that paint patches are placed, looked for, read and moved as the mathematics says."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from sdevid import config as configs
from sdevid import objectives
from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.models.particles import path
from sdevid.models.particles.law import ParticleLaw
from sdevid.models.particles.matching import match
from sdevid.models.particles.middles import different, middle, middles
from sdevid.models.particles.patches import PatchDecoder
from sdevid.models.particles.placing import composed, crops, placed
from sdevid.models.particles.posterior import Observation
from sdevid.models.particles.state import Content
from sdevid.models.particles.thing_control import ThingControl
from sdevid.models.particles.thing_reader import ThingReader, salient, steady
from sdevid.models.particles.walls import Walls
from sdevid.models.sampling import Conditioning, SamplerConfig
from sdevid.objectives.masking import sample_num_initial
from sdevid.types import frame_ticks


def things(noise: str = "diagonal", **particles: object) -> Config:
    return configs.parse(
        {
            "frame_size": 32,
            "channels": 1,
            "sequence_length": 8,
            "sde": {"latent": "particles", "noise": noise, "order": 2, "steps_per_frame": 1},
            "particles": {"count": 2, "patch": 12, "appearance": 4, "hidden": 16, "painter": 8}
            | {"ground": "level", "memory": 3}
            | particles,
            "observation": {"max_context": 4, "min_context": 2},
            "text": {"encoder": "none"},
        }
    )


def bell(side: int, positions: torch.Tensor, width: float = 2.0) -> torch.Tensor:
    """Frames (n, 1, side, side) of one round blob each."""
    axis = torch.arange(side)
    across = (-0.5 * ((axis - positions[:, :1]) / width).square()).exp()
    down = (-0.5 * ((axis - positions[:, 1:]) / width).square()).exp()
    return (down[:, :, None] * across[:, None])[:, None]


@pytest.mark.parametrize(("patch", "at"), [(4, (5.5, 9.5)), (5, (6.0, 2.0))])
def test_patch_on_whole_pixels_is_the_patch(patch, at):
    patches = torch.rand(1, 1, 2, patch, patch)
    canvas = placed(patches, torch.tensor([[at]]), 16)[0, 0]
    left, top = (round(middle - (patch - 1) / 2) for middle in at)
    assert_close(canvas[:, top : top + patch, left : left + patch], patches[0, 0])
    assert float(canvas.sum()) == pytest.approx(float(patches.sum()), rel=1e-5)


def test_patch_between_pixels_is_shared_linearly():
    patches = torch.rand(1, 1, 1, 4, 4)
    between = placed(patches, torch.tensor([[[7.75, 6.5]]]), 16)
    left, right = (placed(patches, torch.tensor([[[x, 6.5]]]), 16) for x in (7.5, 8.5))
    assert_close(between, 0.75 * left + 0.25 * right)


def test_gradients_of_placing_and_composing_equal_differences():
    positions = 3.1 + torch.randint(0, 36, (2, 2, 2)).double() / 4
    patches = torch.rand(2, 2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    ground = torch.rand(2, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    inputs = (ground, patches, positions.requires_grad_())
    assert torch.autograd.gradcheck(composed, inputs, eps=1e-6, atol=1e-7)


def test_cutting_is_the_adjoint_of_placing():
    patches, frames = torch.rand(3, 2, 2, 5, 5).double(), torch.rand(3, 2, 16, 16).double()
    positions = 16 * torch.rand(3, 2, 2).double()
    there = (placed(patches, positions, 16) * frames[:, None]).sum()
    assert_close(there, (patches * crops(frames, positions, 5)).sum())


def test_upper_thing_hides_the_lower_one():
    opaque = torch.ones(1, 2, 2, 4, 4)
    opaque[:, 0, 0] = 0.2
    frame = composed(torch.zeros(1, 1, 16, 16), opaque, torch.tensor([[[7.5, 7.5], [9.5, 7.5]]]))
    assert_close(frame[0, 0, 7, 6:12], torch.tensor([0.2, 0.2, 1, 1, 1, 1]))


@pytest.mark.parametrize("moved", [(3.0, -2.0), (-4.5, 5.0), (0.0, 0.0)])
def test_patch_is_found_where_it_went(moved):
    at = torch.tensor([[15.5, 15.5]])
    blob = bell(12, torch.tensor([[5.5, 5.5]]))[:, None]
    patches = torch.cat([blob, (blob > 0.1).float()], dim=2)
    frames = bell(32, at + torch.tensor([moved]))
    shift = match(frames, patches, at[:, None]).shift
    assert_close(shift[0, 0], torch.tensor(moved), atol=0.3, rtol=0)


def test_reading_moves_with_the_frame():
    reader = ThingReader(things(count=1))
    with torch.no_grad():
        at = torch.tensor([[11.0, 13.0], [17.0, 9.0]])
        one, other = reader.observed(bell(32, at)[:, None].expand(-1, 3, -1, -1, -1))
        place = reader.layout.split(one)[0][:, 0]
    assert_close(place[1] - place[0], at[1] - at[0], atol=1e-3, rtol=0)
    assert_close(other.look[0], other.look[1], atol=1e-3, rtol=1e-3)


def test_most_unexplained_part_is_found_in_its_middle():
    at = torch.tensor([[20.0, 8.0], [6.3, 25.2]])
    assert_close(salient(bell(32, at), 12)[:, 0], at, atol=0.1, rtol=0)


def test_velocity_averages_the_steps_since_the_last_turn():
    straight = torch.tensor([[2.0, -1.0], [2.2, -1.1], [1.8, -0.9]])[None, :, None]
    assert_close(steady(straight)[0, 0], torch.tensor([2.0, -1.0]), atol=0.05, rtol=0)
    turned = torch.tensor([[-3.0, 4.0], [2.1, 1.0], [1.9, 1.0]])[None, :, None]
    assert_close(steady(turned)[0, 0], torch.tensor([2.0, 1.0]), atol=0.01, rtol=0)


def test_middles_of_things_are_found_whatever_their_colours():
    at = torch.tensor([[8.0, 9.5], [22.5, 20.0]])
    blobs = bell(32, at)
    seen = different(blobs[:1] - 0.5 * blobs[1:], 0.1)
    found = middles(seen, 2, 12)[0]
    assert_close(found[found[:, 0].argsort()], at, atol=0.05, rtol=0)
    nothing = middle(torch.zeros(1, 1, 32, 32), at[None, :1], 12)
    assert_close(nothing.place, at[None, :1])
    assert float(nothing.area) == 0


def test_thing_that_is_sought_by_its_middle_is_followed_before_training():
    config = things(count=1, sought="middle", precision_start=400.0)
    reader, control = ThingReader(config), ThingControl(config)
    at = torch.tensor([[11.0, 13.0], [12.5, 12.0], [14.0, 11.0], [15.5, 10.0]])
    frames = bell(32, at)[None]
    with torch.no_grad():
        z, w = reader.observed(frames[:, :3])
        place, velocity, _ = reader.layout.split(z)
        seen = control(frames[:, 3], z, w, torch.ones(1, 2), None)
    assert_close(place[0], at[2:3], atol=0.05, rtol=0)
    assert velocity is not None
    assert_close(velocity[0], torch.tensor([[1.5, -1.0]]), atol=0.3, rtol=0)
    assert_close(seen.shift[0], torch.tensor([[1.5, -1.0]]), atol=0.6, rtol=0)


def test_walls_reflect_and_find_the_nearest_preimage():
    walls = Walls(32)
    torch.nn.init.constant_(walls.reach, 0.5)  # 7.75 and 23.25
    inside, turn = walls.fold(torch.tensor([[[25.0, 15.0], [6.0, 23.0]]]))
    assert_close(inside, torch.tensor([[[21.5, 15.0], [9.5, 23.0]]]))
    assert_close(turn, torch.tensor([[[-1.0, 1.0], [-1.0, 1.0]]]))
    expected = torch.tensor([[[25.4, 15.0], [5.0, 22.5]]])
    assert_close(walls.unfold(inside, expected), torch.tensor([[[25.0, 15.0], [6.0, 23.0]]]))


def test_walls_are_learnt_as_what_visible_things_never_leave():
    torch.manual_seed(0)
    walls, low, high = Walls(64), torch.tensor([12.0, 15.0]), torch.tensor([50.0, 40.0])
    optimizer = torch.optim.Adam(walls.parameters(), lr=6e-3)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 6e-3 * (1 - step / 400)
        places = low + (high - low) * torch.rand(8, 6, 1, 2)
        places = torch.cat([places, torch.tensor([2.0, 62.0]).expand_as(places)], dim=2)
        presence = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1).expand(8, 6, 2, 1)
        optimizer.zero_grad()
        walls.misfit(places, presence).mean().backward()
        optimizer.step()
    assert_close(walls.box, torch.stack([low, high]), atol=1.0, rtol=0)


def test_reflected_chain_keeps_to_the_field_and_its_speed():
    law = ParticleLaw(things("additive", count=1, walls=True, diffusion_start=0.01))
    torch.nn.init.constant_(law.walls.reach, 0.5)
    w = Content(*torch.zeros(2, 1, 1, 1), torch.zeros(1, 1, 2), torch.zeros(1, 1, 32, 32))
    w = w._replace(look=torch.zeros(1, 1, 4))
    start = torch.tensor([[[15.0, 15.0, 2.0, -1.5]]])
    steps, dw = torch.ones(1, 60), torch.randn(1, 60, 1, 2)
    with torch.no_grad():
        states = path.solve_path(law, start, law.conditions(w), steps, dw, range(61)).states
    low, high = law.walls.box
    assert ((states[..., :2] >= low) & (states[..., :2] <= high)).all()
    assert_close(states[0, -1, 0, 2:].abs(), start[0, 0, 2:].abs(), atol=0.4, rtol=0)


def test_friction_slows_a_velocity_at_its_rate():
    law = ParticleLaw(things("additive", count=1, friction_start=0.25))
    w = Content(*torch.zeros(2, 1, 1, 1), torch.zeros(1, 1, 2), torch.zeros(1, 1, 32, 32))
    w = w._replace(look=torch.zeros(1, 1, 4))
    z = torch.tensor([[[15.0, 15.0, 2.0, -1.0]]])
    with torch.no_grad():
        pull = law.pull(z, law.conditions(w))
    assert_close(pull, torch.tensor([[[-0.5, 0.25]]]))


def test_choice_of_views_gives_no_gradient_to_the_velocity():
    decoder = PatchDecoder(things(count=1, views=4))
    w = Content(
        torch.zeros(1, 1, 1),
        torch.zeros(1, 1, 4),
        torch.zeros(1, 1, 2),
        torch.zeros(1, 1, 32, 32),
        torch.rand(1, 1, 4, 2, 12, 12),
    )
    z = torch.tensor([[[[15.3, 9.7, 1.0, 0.5]]]], requires_grad=True)
    decoder(z, w).square().sum().backward()
    assert z.grad is not None
    assert z.grad[..., :2].any()
    assert not z.grad[..., 2:].any()
    right, down = torch.tensor([2.0, 0.1]), torch.tensor([0.1, 2.0])
    share = decoder.choice(torch.stack([right, down]) / 4).softmax(-1)
    assert share.argmax(-1).tolist() == [0, 1]


def test_diffusion_by_state_has_the_exact_kl():
    torch.manual_seed(0)
    law = ParticleLaw(things())
    for parameter in law.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    born, look = 32 * torch.rand(3, 2, 2), torch.randn(3, 2, 4)
    w = Content(torch.zeros(3, 2, 1), look, born, torch.zeros(3, 1, 32, 32))
    start = law.layout.join(born, torch.randn(3, 2, 2), None)
    shift, precision, dt = torch.randn(3, 2, 2), torch.rand(3, 2, 1) * 4, 0.5
    seen = Observation(shift, precision, None, None)
    conditions = law.conditions(w)
    span, dw = torch.full((3, 1), dt), torch.zeros(3, 1, 2, 2)
    walked = path.solve_path(law, start, conditions, span, dw, [0, 1], lambda _z, _k: seen)
    motion = law.motion(start, conditions)
    velocity = law.layout.split(start)[1]
    mean = (velocity + motion.pull * dt) * dt
    width = motion.diffusion * math.sqrt(dt) * dt
    assert motion.diffusion.std() > 0
    variance = 1 / (1 / width.square() + precision)
    posterior = Normal(variance * (mean / width.square() + precision * shift), variance.sqrt())
    exact = kl_divergence(posterior, Normal(mean, width)).sum((1, 2))
    assert_close(walked.kl, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("views", [1, 3])
def test_decoder_draws_a_thing_at_its_place_over_the_ground(views):
    decoder = PatchDecoder(things(count=1, views=views))
    opaque = torch.ones(2, 1, views, 2, 12, 12)
    w = Content(
        torch.full((2, 1, 1), 30.0),
        torch.zeros(2, 1, 4),
        torch.zeros(2, 1, 2),
        torch.full((2, 1, 32, 32), 0.25),
        opaque,
    )
    z = torch.tensor([15.5, 9.5, 1.0, 0.0]).expand(2, 3, 1, 4)
    frames = decoder(z, w)
    expected = torch.full((2, 3, 1, 32, 32), 0.25)
    expected[..., 4:16, 10:22] = 1
    assert_close(frames, expected)


@pytest.mark.parametrize(
    ("noise", "views", "sought"),
    [("additive", 3, "patch"), ("diagonal", 1, "patch"), ("additive", 4, "middle")],
)
def test_objective_trains_every_parameter(noise, views, sought):
    walls = sought == "middle"
    objective = objectives.build(
        things(noise, views=views, ground="painted", sought=sought, walls=walls)
    )
    video = torch.randint(0, 255, (3, 8, 32, 32, 1), dtype=torch.uint8)
    ticks, serial = frame_ticks(8).expand(3, -1), torch.arange(3)
    with torch.no_grad():
        terms = objective(video, ticks, serial, 1.0)
    assert float(terms["elbo"]) == pytest.approx(
        float(terms["reconstruction"] - terms["kl_path"] - terms["kl_initial"]), rel=1e-4
    )
    for parameter in objective.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    for context in (0, 3):
        objective(video, ticks, serial, 1.0, context=context)["loss"].backward()
    idle = [name for name, p in objective.named_parameters() if p.grad is None or not p.grad.any()]
    unused = ["model.law.log_length"]  # things move on their own
    assert idle == unused


def test_still_share_of_the_run_draws_one_frame_and_pays_for_no_path():
    objective = objectives.build(things(still=0.25))
    video = torch.randint(0, 255, (3, 8, 32, 32, 1), dtype=torch.uint8)
    ticks, serial = frame_ticks(8).expand(3, -1), torch.arange(3)
    whole = objective.terms(video, ticks, serial, 3)
    objective.progress.fill_(0.1)
    still = objective.terms(video, ticks, serial, 3)
    video[:, 3:] = 0  # what follows the first frame of the path, the third
    other = objective.terms(video, ticks, serial, 3)
    assert not still["kl_path"].any()
    assert whole["kl_path"].any()
    assert_close(still["reconstruction"], other["reconstruction"])
    assert (still["reconstruction"] != whole["reconstruction"]).all()


def test_futures_and_free_video_are_drawn():
    model = objectives.build(things(count=3)).model
    frames = torch.rand(2, 4, 1, 32, 32)
    ticks = frame_ticks(4).expand(2, -1)
    later = frame_ticks(9)[3:].expand(2, -1)
    seen = Conditioning(frames=frames, frame_ticks=ticks)
    with torch.no_grad():
        futures = model.generate(later, SamplerConfig(seed=1), seen).frames
        free = model.generate(later, SamplerConfig(seed=1), Conditioning()).frames
    assert futures.shape == free.shape == (2, 6, 1, 32, 32)
    assert torch.isfinite(futures).all()
    assert torch.isfinite(free).all()


def test_fewest_frames_shown_are_kept():
    settings = things().observation
    count = sample_num_initial(settings, 0, torch.arange(2000), 8)
    shown = count[count > 0]
    assert sorted(set(shown.tolist())) == [2, 3, 4]
    assert float((count == 0).float().mean()) == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"particles": {"patch": 10}}, "particles.patch is 10"),
        ({"particles": {"patch": 64}}, "particles.patch is 64"),
        ({"particles": {"patch": 12, "count": 17}}, "particles.count is 17"),
        ({"particles": {"patch": 12, "count": 2, "ring": True}}, "ring is true"),
        ({"particles": {"patch": 12, "count": 2, "presence": "depth"}}, "presence is depth"),
        ({"sde": {"noise": "carried"}}, "sde.noise is carried"),
        ({"particles": {"patch": 12, "drift_by_place": True}}, "drift_by_place is true"),
        ({"particles": {"patch": 0, "count": 4, "sought": "middle"}}, "sought is middle"),
        ({"sde": {"order": 1}, "particles": {"friction_start": 0.1}}, "friction_start is 0.1"),
        ({"sde": {"order": 1}, "particles": {"jitter_start": 0.1}}, "jitter_start is 0.1"),
        ({"particles": {"poses": 4}}, "poses is 4"),
        ({"observation": {"min_context": 1}}, "min_context is 1"),
        ({"observation": {"min_context": 5}}, "min_context is 5"),
    ],
)
def test_settings_that_do_not_fit_are_named(changed, named):
    values = {
        "frame_size": 32,
        "sde": {"latent": "particles", "order": 2, "noise": "diagonal"},
        "particles": {"patch": 12, "count": 2},
        "observation": {"max_context": 4, "min_context": 2},
    }
    for section, value in changed.items():
        values[section] = {**values[section], **value}
    with pytest.raises(UserError, match=named):
        configs.parse(values)

"""A walk's noise of places and of velocities, and the pose that goes round with it."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from sdevid import config as configs
from sdevid import objectives
from sdevid.config import Config
from sdevid.models.particles import path, poses
from sdevid.models.particles.law import ParticleLaw
from sdevid.models.particles.patches import PatchDecoder
from sdevid.models.particles.posterior import Observation
from sdevid.models.particles.state import Content
from sdevid.models.particles.thing_reader import ThingReader
from sdevid.models.sampling import Conditioning, SamplerConfig
from sdevid.types import frame_ticks

CERTAIN = 1e8  # precision of a place that is known, pixel^-2


def things(**particles: object) -> Config:
    return configs.parse(
        {
            "frame_size": 32,
            "channels": 1,
            "sequence_length": 8,
            "sde": {"latent": "particles", "noise": "additive", "order": 2, "steps_per_frame": 1},
            "particles": {"count": 1, "patch": 12, "appearance": 4, "hidden": 16, "painter": 8}
            | {"ground": "level", "memory": 3}
            | particles,
            "observation": {"max_context": 4, "min_context": 2},
            "text": {"encoder": "none"},
        }
    )


def still(batch: int) -> Content:
    look, born = torch.zeros(batch, 1, 4), torch.zeros(batch, 1, 2)
    return Content(torch.zeros(batch, 1, 1), look, born, torch.zeros(batch, 1, 32, 32))


def walking_law(friction: float, diffusion: float, jitter: float) -> ParticleLaw:
    starts = {"friction_start": friction, "diffusion_start": diffusion, "jitter_start": jitter}
    return ParticleLaw(things(**starts))


def walked(
    friction: float, diffusion: float, jitter: float, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Walks by two noises: places (walks, frames, 1, 2) and the first frame's velocity."""
    walks, frames = shape
    kept = 1 - friction
    velocity = torch.randn(walks, 1, 2) * diffusion / math.sqrt(1 - kept**2)
    first, place = velocity, torch.zeros(walks, 1, 2)
    places = [place]
    for _ in range(frames):
        velocity = kept * velocity + diffusion * torch.randn_like(velocity)
        place = place + velocity + jitter * torch.randn_like(place)
        places.append(place)
    return torch.stack(places, 1), first


def log_density(law: ParticleLaw, places: Tensor, start: Tensor) -> Tensor:
    """The chain's log density of given places: its divergence where they are certain."""
    w = still(len(places))

    def observe(z: Tensor, k: int) -> Observation:
        precision = torch.full((len(z), 1, 1), CERTAIN)
        return Observation(places[:, k + 1] - z[..., :2], precision, None, None)

    steps = places.shape[1] - 1
    dt, dw = torch.ones(len(places), steps), torch.zeros(len(places), steps, 1, 2)
    z = law.layout.join(places[:, 0], start, None)
    spent = path.solve_path(law, z, law.conditions(w), dt, dw, [0], observe).kl
    return steps * (math.log(CERTAIN) - math.log(2 * math.pi) - 1) - spent


@pytest.mark.parametrize("length", [0.25, 1.0])
def test_one_noise_gives_the_covariances_of_two(length):
    friction, diffusion, jitter = 0.3, 0.7, 0.5
    law = walking_law(friction, diffusion, jitter)
    dt = torch.full((1, 1, 1), length)
    z = torch.zeros(1, 1, 4)
    base, width, gain = path.scales(law.layout, z, law.motion(z, law.conditions(still(1))), dt)
    assert not base.any()
    assert gain is not None
    kept, w, k = 1 - friction * length, width.square().item(), gain.item()
    told = k * k * w / length**2 / (1 - kept**2)  # variance of the velocity that is told
    own = [kept**2 * length**2 * told + w]
    lagged = kept * length * (kept**2 * length * told + k * w / length)
    true = diffusion**2 * length / (1 - kept**2)
    assert own[0] == pytest.approx(length**2 * true + jitter**2 * length, rel=1e-5)
    assert lagged == pytest.approx(length**2 * true * kept, rel=1e-5)


def test_density_is_that_of_the_joint_gaussian():
    torch.manual_seed(0)
    friction, diffusion, jitter, frames = 0.2, 0.6, 0.4, 60
    law = walking_law(friction, diffusion, jitter)
    places, _ = walked(friction, diffusion, jitter, (3, frames))
    kept = 1 - friction
    lag = (torch.arange(frames)[:, None] - torch.arange(frames)).abs()
    covariance = diffusion**2 / (1 - kept**2) * kept**lag + jitter**2 * torch.eye(frames)
    steps = places.diff(dim=1)[:, :, 0].transpose(1, 2)

    def joint(count: int) -> Tensor:
        gaussian = MultivariateNormal(torch.zeros(count), covariance[:count, :count])
        return gaussian.log_prob(steps[..., :count]).sum(1)

    with torch.no_grad():
        start = torch.zeros(3, 1, 2)
        whole, first = (log_density(law, part, start) for part in (places, places[:, :31]))
    assert_close(whole - first, joint(frames) - joint(30), rtol=1e-3, atol=0.02)


def test_known_noises_are_recovered_from_places():
    torch.manual_seed(1)
    true = {"friction": 0.125, "diffusion": 0.69, "jitter": 0.4}
    places, first = walked(*true.values(), (300, 20))
    law = walking_law(0.3, 1.0, 0.2)
    learnt = {
        "friction": law.log_friction,
        "diffusion": law.log_diffusion,
        "jitter": law.log_jitter,
    }
    optimizer = torch.optim.LBFGS(learnt.values(), max_iter=15, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -log_density(law, places, first).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    for name, parameter in learnt.items():
        assert parameter.exp().item() == pytest.approx(true[name], rel=0.08)


def test_prior_walks_by_both_noises():
    torch.manual_seed(2)
    law = walking_law(0.3, 0.7, 0.5)
    many, steps = 20_000, 2
    start = torch.zeros(many, 1, 4)
    dw, dt = torch.randn(many, steps, 1, 4), torch.ones(many, steps)
    with torch.no_grad():
        states = path.solve_path(law, start, law.conditions(still(many)), dt, dw, range(3)).states
    place, velocity = states[:, 1:, 0, :2], states[:, 1:, 0, 2:4]
    assert_close(velocity[:, 0], 0.7 * dw[:, 0, 0, :2])
    assert_close(place[:, 0], velocity[:, 0] + 0.5 * dw[:, 0, 0, 2:])
    shift = place[:, 1] - place[:, 0]
    assert shift.var().item() == pytest.approx(0.49 * (1 + 0.49) + 0.25, rel=0.03)


def test_a_pose_lies_between_two_painted_ones():
    pose = torch.tensor([[0.0], [0.125], [0.9375], [-3.75]])
    share = poses.shares(pose, 4)
    expected = [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.75, 0, 0, 0.25], [0, 1, 0, 0]]
    assert_close(share, torch.tensor(expected))


def test_pose_goes_round_with_the_way_walked():
    law = ParticleLaw(things(sought="middle", poses=4, stride_start=6.0, walls=True))
    w, start = still(1), torch.tensor([[[15.0, 15.0, 2.0, -1.5, 0.25]]])
    steps, dw = torch.ones(1, 3), torch.zeros(1, 3, 1, 2)
    with torch.no_grad():
        states = path.solve_path(law, start, law.conditions(w), steps, dw, range(4)).states
    assert_close(states[0, :, 0, 4], 0.25 + 2.5 / 6 * torch.arange(4))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_pose_is_read_off_a_walk(sign):
    torch.manual_seed(0)
    config = things(views=4, sought="middle", poses=4)
    decoder, stride = PatchDecoder(config), torch.tensor([7.0])
    shades = torch.rand(2, 1, 16, 2, 12, 12)
    shades[:, :, :, -1] = 1
    w = Content(
        torch.full((2, 1, 1), 30.0),
        torch.zeros(2, 1, 4),
        torch.zeros(2, 1, 2),
        torch.full((2, 1, 32, 32), 0.5),
        shades,
    )
    step, pose = torch.tensor([2.0, 0.0]), torch.tensor([0.375, 0.75])
    back = torch.tensor([2.0, 1.0, 0.0])[:, None, None]
    places = (torch.tensor([15.5, 15.5]) - back * step).expand(2, -1, -1, -1)
    walk = sign * step.expand_as(places)
    turned = pose[:, None, None, None] - sign * 2.0 * back / stride
    z = torch.cat([places, walk, turned.expand(2, -1, -1, -1)], dim=-1)
    seen = decoder(z, w) - 0.5
    found = poses.read(decoder, stride, w, seen, places, torch.full((2, 1, 1), sign))
    assert_close(found[:, 0, 0], pose)


def test_poses_are_named_at_a_cost_and_drawn_alike():
    objective = objectives.build(things(views=2, sought="middle", poses=4, jitter_start=0.2))
    objective = objective.eval()
    drawn = poses.drawn(3, torch.arange(4000), 1, 4)
    counts = torch.bincount((8 * drawn).round().long().flatten(), minlength=8)
    assert counts.min() > 400
    assert float(drawn.max()) < 1
    assert poses.cost(4) == pytest.approx(math.log(len(counts)))
    video = torch.randint(0, 255, (2, 8, 32, 32, 1), dtype=torch.uint8)
    ticks, serial = frame_ticks(8).expand(2, -1), torch.arange(2)
    with torch.no_grad():
        told = objective.terms(video, ticks, serial, 3)
        free = objective.terms(video, ticks, serial, 0)
    assert not told["kl_initial"].any()
    assert (free["kl_initial"] > poses.cost(4)).all()


def test_objective_trains_every_parameter_and_the_law_by_its_divergence_alone():
    starts = {"poses": 4, "jitter_start": 0.2, "friction_start": 0.1}
    objective = objectives.build(things(views=3, sought="middle", walls=True, **starts))
    video = torch.randint(0, 255, (3, 8, 32, 32, 1), dtype=torch.uint8)
    ticks, serial = frame_ticks(8).expand(3, -1), torch.arange(3)
    for parameter in objective.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    for context in (0, 3):
        objective(video, ticks, serial, 1.0, context=context)["loss"].backward()
    idle = [name for name, p in objective.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == ["model.law.log_length"]
    objective.zero_grad()
    objective.terms(video, ticks, serial, 3)["reconstruction"].sum().backward()
    moved = {n for n, p in objective.model.law.named_parameters() if p.grad is not None}
    assert {name for name in moved if objective.model.law.get_parameter(name).grad.any()} == {
        "log_stride"
    }


def test_futures_and_free_video_of_walkers_are_drawn_alike_in_chunks():
    model = objectives.build(things(views=2, poses=4, sought="middle", jitter_start=0.2)).model
    later = frame_ticks(9)[3:].expand(2, -1)
    seen = Conditioning(
        frames=torch.rand(2, 4, 1, 32, 32), frame_ticks=frame_ticks(4).expand(2, -1)
    )
    for conditioning in (seen, Conditioning()):
        with torch.no_grad():
            whole = model.generate(later, SamplerConfig(seed=1), conditioning).frames
            chunks = model.chunks(later, SamplerConfig(seed=1), conditioning, 2)
            parts = torch.cat([chunk.frames for chunk in chunks], dim=1)
        assert whole.shape == (2, 6, 1, 32, 32)
        assert_close(parts, whole)


def test_free_start_is_drawn_as_near_as_a_middle_is_read():
    reader = ThingReader(things(sought="middle", precision_start=100.0))
    assert_close(16 * reader.log_scale.detach()[:2].exp(), torch.full((2,), 0.1))

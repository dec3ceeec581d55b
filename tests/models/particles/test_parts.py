"""Particles are read, moved, seen and drawn where and as the mathematics says."""

import math

import pytest
import torch
from torch.testing import assert_close

from sdevid import config as configs
from sdevid.errors import UserError
from sdevid.models.particles import path
from sdevid.models.particles.decoder import ParticleDecoder
from sdevid.models.particles.groups import membership
from sdevid.models.particles.law import ParticleLaw
from sdevid.models.particles.posterior import Observation, ParticleControl, features_at
from sdevid.models.particles.reader import ParticleReader
from sdevid.models.particles.state import Content, layout_of


def content(batch: int, born: torch.Tensor | None = None) -> Content:
    positions = 32 * torch.rand(batch, 16, 2) if born is None else born
    shape = (batch, positions.shape[1])
    return Content(
        torch.zeros(*shape, 1), torch.ones(*shape, 3), positions, torch.zeros(batch, 1, 32, 32)
    )


def walked(
    law: ParticleLaw,
    w: Content,
    steps: int = 1,
    dt: float = 1.0,
    observe: path.Observe | None = None,
) -> path.ParticlePath:
    layout = law.layout
    batch, count = w.born.shape[:2]
    speed = torch.zeros_like(w.born) if layout.order == 2 else None
    depth = torch.zeros(batch, count, 1) if layout.has_depth else None
    start = layout.join(w.born, speed, depth)
    span = torch.full((batch, steps), dt)
    dw = math.sqrt(dt) * torch.randn(batch, steps, count, layout.noises)
    return path.solve_path(law, start, law.conditions(w), span, dw, range(steps + 1), observe)


def test_prior_moves_particles_by_g_and_neighbours_together(small):
    law = ParticleLaw(small(diffusion_start=1.5, length_start=4.0))
    born = torch.tensor([[5.0, 5.0], [7.0, 5.0], [28.0, 28.0]]).expand(20_000, 3, 2)
    with torch.no_grad():
        states = walked(law, content(20_000, born), dt=0.25).states
    step = states[:, 1] - states[:, 0]
    assert_close(step.var(0), torch.full((3, 2), 1.5**2 * 0.25), rtol=0.05, atol=0)
    together = (step[:, 0] * step[:, 1]).mean() / step[:, 0].square().mean()
    apart = (step[:, 0] * step[:, 2]).mean() / step[:, 0].square().mean()
    assert float(together) == pytest.approx(math.exp(-(2**2) / (2 * 4**2)), abs=0.02)
    assert float(apart) == pytest.approx(0, abs=0.02)


def test_what_draws_one_thing_moves_as_one_and_two_things_do_not(small):
    law = ParticleLaw(small(diffusion_start=1.5, length_start=3.0, group=2.0))
    born = torch.tensor([[8.0, 8.0], [11.0, 8.0], [20.0, 8.0], [20.0, 11.5], [22.0, 20.0]])
    w = content(4000, born.expand(4000, 5, 2))
    w = w._replace(logit=torch.tensor([3.0, 3.0, 3.0, 1.0, -9.0])[:, None].expand(4000, 5, 1))
    torch.manual_seed(0)
    span, dw = torch.ones(4000, 8), torch.randn(4000, 8, 5, 2)
    apart = {}
    for grouped in (True, False):
        conditions = law.conditions(w, grouped=grouped)
        with torch.no_grad():
            states = path.solve_path(law, w.born, conditions, span, dw, range(9)).states
        moved = states[:, -1] - states[:, 0]
        assert_close(moved.var(0), torch.full((5, 2), 8 * 1.5**2), rtol=0.1, atol=0)
        apart[grouped] = [
            float((moved[:, a] - moved[:, b]).square().mean()) for a, b in [(0, 1), (2, 3), (0, 2)]
        ]
    free = 2 * 8 * 1.5**2  # of two independent particles
    assert apart[False][0] == pytest.approx(free * (1 - math.exp(-(3**2) / 18)), rel=0.05)
    assert max(apart[True][:2]) < 1e-3 * free
    assert apart[True][2] == pytest.approx(free, rel=0.05)


def test_absent_particles_gather_nothing():
    born = torch.tensor([[[10.0, 10.0], [13.0, 10.0], [40.0, 40.0]]])
    gone, seen = torch.full((1, 1), -12.0), torch.full((1, 1), 4.0)
    weights = membership(born, torch.stack([seen, gone, gone], dim=1), 2.0)
    expected = torch.tensor([[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    assert_close(weights, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("order", [1, 2])
def test_sure_observation_puts_particles_where_it_says(order, small):
    law, shift = ParticleLaw(small(order)), torch.tensor([1.5, -0.5])

    def observe(z, _):
        sure = torch.full((*z.shape[:2], 1), 1e5)
        return Observation(shift.expand(*z.shape[:2], 2), sure, None, None)

    result = walked(law, content(4), steps=3, observe=observe)
    shifted = result.states[:, 1:, :, :2] - result.states[:, :-1, :, :2]
    assert_close(shifted, shift.expand_as(shifted), atol=0.05, rtol=0)
    assert (result.kl > result.energy).all()


def drawn_with(law, w):
    """A path whose posterior sees a step of a pixel with precision 1, always by the same noise."""

    def observe(z, _):
        return Observation(torch.ones(*z.shape[:2], 2), torch.ones(*z.shape[:2], 1), None, None)

    torch.manual_seed(1)
    return walked(law, w, observe=observe)


@pytest.mark.parametrize(("order", "by_place"), [(1, False), (1, True), (2, True)])
def test_drift_learns_from_the_divergence_alone(order, by_place, small):
    torch.manual_seed(0)
    law = ParticleLaw(small(order, drift_by_place=by_place))
    weight = law.drift[-1].weight
    torch.nn.init.normal_(weight, std=0.3)
    result = drawn_with(law, content(4))
    shown = result.states[..., :2].sum()
    assert torch.autograd.grad(shown, weight, allow_unused=True, retain_graph=True)[0] is None
    assert torch.autograd.grad(result.kl.sum(), weight)[0].abs().max() > 0


def test_a_held_drift_changes_no_value(small):
    torch.manual_seed(0)
    law, plain = ParticleLaw(small(2, drift_by_place=True)), ParticleLaw(small(2))
    torch.nn.init.normal_(law.drift[-1].weight, std=0.3)
    plain.load_state_dict(law.state_dict(), strict=False)  # sines of the place start at 0
    w = content(4)
    for part, other in zip(drawn_with(law, w), drawn_with(plain, w), strict=True):
        assert_close(part, other)


def test_drift_by_place_stays_what_it_is_at_the_edge_beyond_it(small):
    law = ParticleLaw(small(drift_by_place=True))
    torch.nn.init.normal_(law.by_place.weight)
    w = content(2)
    conditions = law.conditions(w)
    edge, far = torch.full_like(w.born, 32.0), torch.full_like(w.born, 50.0)
    edge[..., 1] = far[..., 1] = 9.0
    assert law.pull(edge, conditions).abs().max() > 0
    assert_close(law.pull(far, conditions), law.pull(edge, conditions))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("presence", ["static", "depth"])
def test_observation_of_no_precision_costs_nothing(order, presence, small):
    law = ParticleLaw(small(order, presence=presence))

    def observe(z, _):
        none = torch.zeros(*z.shape[:2], 1)
        return Observation(torch.ones(*z.shape[:2], 2), none, none, none)

    result = walked(law, content(4), steps=2, observe=observe)
    assert_close(result.kl, torch.zeros(4), atol=1e-4, rtol=0)


def test_step_of_no_time_changes_nothing(small):
    law = ParticleLaw(small(2, presence="depth"))

    def observe(z, _):
        one = torch.ones(*z.shape[:2], 1)
        return Observation(torch.ones(*z.shape[:2], 2), one, one, one)

    result = walked(law, content(3), steps=2, dt=0.0, observe=observe)
    assert_close(result.states[:, -1], result.states[:, 0])
    assert_close(result.kl, torch.zeros(3), atol=1e-5, rtol=0)


def test_depth_has_its_stationary_variance_at_any_step(small):
    law = ParticleLaw(small(presence="depth"))
    with torch.no_grad():
        rate, noise = law.depth()
        for steps, dt in ((1, 200.0), (40, 5.0)):
            depth = walked(law, content(2_000), steps, dt).states[:, -1, :, -1]
            assert float(depth.var()) == pytest.approx(float(noise**2 / (2 * rate)), rel=0.05)


def test_drift_does_not_depend_on_absent_particles(small):
    law = ParticleLaw(small())
    torch.nn.init.normal_(law.drift[2].weight)
    w = content(2)
    logit = w.logit.clone()
    logit[:, 1:] = -40.0
    text = law.conditions(w._replace(logit=logit))
    other = w.born.clone()
    other[:, 1:] += 5.0
    first = law.pull(w.born, text)[:, 0]
    assert_close(law.pull(other, text)[:, 0], first, atol=1e-4, rtol=1e-4)


def test_particle_is_drawn_at_its_place_and_absent_one_is_not(small):
    config = small()
    decoder = ParticleDecoder(config)
    place = torch.tensor([[[20.0, 9.0], [5.0, 25.0]]])
    w = content(1, place)._replace(logit=torch.tensor([[[9.0], [-40.0]]]))
    canvas = decoder.canvas(place[:, None], w)[0, 0].detach()
    axis = decoder.axis
    mass = canvas.sum()
    assert float((canvas.sum(0) @ axis) / mass) == pytest.approx(20.0, abs=0.05)
    assert float((canvas.sum(1) @ axis) / mass) == pytest.approx(9.0, abs=0.05)
    frame = decoder(place[:, None], w)
    assert frame.shape == (1, 1, 1, 32, 32)


def test_features_are_read_features_at_in_pixels():
    ramp = torch.arange(8.0) * 4 + 1.5  # centre of each cell of 4 pixels
    features = torch.stack([ramp.expand(8, 8), ramp[:, None].expand(8, 8)])[None]
    positions = torch.tensor([[[13.0, 22.5], [8.25, 4.0]]])
    assert_close(features_at(features, positions, 32), positions)


def test_precision_before_training_is_that_of_its_setting(small):
    config = small(precision_start=5.0)
    control, w = ParticleControl(config), content(2)
    torch.nn.init.zeros_(control.place[-1].weight)
    seen = control(torch.randn(2, 24, 8, 8), w.born, w, torch.ones(2, 2))
    assert_close(seen.precision, torch.full((2, 16, 1), 5.0))


def test_reader_gives_a_free_start_where_nothing_is_observed(small):
    config = small()
    reader, frames = ParticleReader(config), torch.rand(2, 1, 1, 32, 32)
    free = torch.tensor([True, False])
    birth = reader(frames, free, torch.randn(2, 16, 6), None)
    assert birth.kl[0] > 0
    assert birth.kl[1] == 0
    place = layout_of(config).split(birth.state)[0]
    assert (place - reader.home).abs().max() <= 0.75 * 8
    assert_close(birth.content.ground[0], torch.full((1, 32, 32), 0.5))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"sde": {"latent": "map", "noise": "carried"}}, "sde.noise is carried"),
        ({"model_type": "follmer", "sde": {"latent": "particles"}}, "model_type is follmer"),
        ({"sde": {"latent": "particles", "noise": "diagonal"}}, "sde.noise is diagonal"),
        ({"sde": {"latent": "particles"}, "particles": {"count": 0}}, "particles.count"),
        ({"sde": {"latent": "particles"}, "particles": {"count": 50}}, "a square"),
        ({"sde": {"latent": "particles"}, "particles": {"count": 10_000}}, "particles.count"),
        ({"sde": {"latent": "particles"}, "particles": {"count": 81}}, "frame_size 64"),
        ({"sde": {"latent": "particles"}, "consistency": {"warp": True}}, "consistency.warp"),
        ({"sde": {"latent": "particles"}, "particles": {"group": 2}}, "particles.group is 2"),
        (
            {"sde": {"latent": "particles"}, "particles": {"walls": True, "ring": True}},
            "walls and particles.ring",
        ),
    ],
)
def test_settings_that_do_not_fit_are_named(changed, named):
    with pytest.raises(UserError, match=named):
        configs.parse({"frame_size": 64} | changed)

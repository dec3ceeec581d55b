"""What lies around the picture comes in as often as what is in it leaves."""

import math

import torch
from torch.testing import assert_close

from sdevid.models.particles.law import ParticleLaw
from sdevid.models.particles.path import solve_path
from sdevid.models.particles.ring import Ring
from sdevid.models.particles.state import Content

LOW, SIDE = -8.5, 48.0  # of the ring's outer edge around a frame of 32 pixels in 4 x 4 cells


def test_ring_lies_outside_and_its_posterior_starts_as_prior(small):
    config = small(ring=True)
    ring = Ring(config)
    assert len(ring.home) == ring.size == 20
    eps, features = torch.randn(500, 20, 3), torch.randn(500, 2, 24, 8, 8)
    prior, posterior = ring(eps, None), ring(eps, features)
    outside = (prior.positions < 0) | (prior.positions > 31)
    assert outside.any(-1).float().mean() > 0.9
    assert (prior.positions - ring.home).abs().max() <= 4.0
    assert_close(posterior.kl, torch.zeros(500), atol=1e-5, rtol=0)
    assert_close(posterior.logit, prior.logit)


def test_what_leaves_comes_in_on_the_other_side(small):
    place = torch.linspace(-500, 500, 4000).reshape(1, 2000, 2)
    found = Ring(small(ring=True)).returned(place)
    assert bool(((found >= LOW) & (found < LOW + SIDE)).all())
    turns = (found - place) / SIDE
    assert_close(turns, turns.round(), atol=1e-5, rtol=0)


def test_picture_stays_as_full_as_it_began_and_runs_dry_without_return(small):
    config, count, steps = small(ring=True, diffusion_start=3.0), 16, 64
    law, ring = ParticleLaw(config), Ring(config)
    start = LOW + SIDE * torch.rand(500, count, 2)
    w = Content(torch.zeros(500, count, 1), torch.ones(500, count, 3), start, torch.zeros(1))
    noise, dt = torch.randn(500, steps, count, 2), torch.ones(500, steps)

    def inside(returned) -> list[float]:
        """Compute the share of the particles that is in the picture, first and last."""
        with torch.no_grad():
            conditions = law.conditions(w)
            states = solve_path(law, start, conditions, dt, noise, (0, steps), returned=returned)
        place = states.states[:, :, :, :2]
        return ((place > -0.5) & (place < 31.5)).all(-1).float().mean((0, 2)).tolist()

    began, stayed = inside(ring.returned)
    share = (32 / SIDE) ** 2
    error = math.sqrt(share * (1 - share) / (500 * count))
    assert abs(began - share) < 5 * error
    assert abs(stayed - share) < 10 * error  # particles near each other move alike
    begin = torch.linspace(-SIDE / 2, SIDE / 2, 2001)  # from the middle; g sqrt(t) is 24 pixels
    normal = torch.distributions.Normal(begin, 3.0 * math.sqrt(steps))
    left = (normal.cdf(torch.tensor(16.0)) - normal.cdf(torch.tensor(-16.0))).mean()
    assert abs(inside(None)[1] - float(left) ** 2) < 10 * error

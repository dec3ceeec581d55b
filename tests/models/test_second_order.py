"""A latent of positions and velocities: what sees which half, its sampling, what refuses it."""

import factories
import pytest
import torch

from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.models.latent_sde import LatentSDE
from sdevid.models.sampling import Conditioning, SamplerConfig
from sdevid.models.text import as_bytes
from sdevid.types import frame_ticks

SMALL = factories.settings()
VECTOR = {"order": 2, "latent_size": 3, "content_size": 2, "hidden": 16}
MAP = VECTOR | {"latent": "map"}
KINDS = {
    "vector": VECTOR,
    "diagonal": VECTOR | {"noise": "diagonal"},
    "convolutions": MAP | {"noise": "diagonal"},
    "friction": MAP | {"friction_start": 0.2},
    "transformer": MAP | {"backbone": "transformer", "heads": 2},
}


def model(kind="vector", **more):
    torch.manual_seed(0)
    result = LatentSDE(parse(SMALL | {"sde": KINDS[kind]} | more))
    return factories.shake(result)


@pytest.mark.parametrize("kind", KINDS)
def test_drift_sees_velocities_and_pictures_do_not(kind):
    result = model(kind)
    z, w, c = torch.randn(2, *result.latent_shape), torch.randn(2, 2), torch.randn(2, 1, 16)
    assert result.latent_shape[0] == 2 * result.noise_shape[0] == 6
    faster = z.clone()
    faster[:, 3:] += 1
    conditions = result.prior.conditions(w, c)
    drift, g = result.prior(z, conditions)
    assert drift.shape == (2, *result.noise_shape)
    assert (result.prior(faster, conditions)[0] - drift).abs().max() > 1e-4
    torch.testing.assert_close(result.prior.diffusion(z, conditions), g)
    assert torch.equal(result.decoder(z[:, None], w), result.decoder(faster[:, None], w))
    ahead = z.clone()
    ahead[:, :3] += 1
    assert (result.decoder(ahead[:, None], w) - result.decoder(z[:, None], w)).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_smaller_steps_and_twice_the_frames_come_to_one_video(kind):
    """At strong order 1/2 or 1: four times the steps leave half the error or less."""
    result = model(kind)
    ticks, serial = frame_ticks(4).expand(8, -1), torch.arange(8)
    videos = [
        result.sample(ticks, seed=1, serial=serial, steps_per_frame=n) for n in (2, 8, 32, 128)
    ]
    errors = [(video - videos[-1]).abs().mean() for video in videos[:-1]]
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.5 * errors[1]
    twice = result.sample(
        frame_ticks(7, 2).expand(8, -1), seed=1, serial=serial, steps_per_frame=64
    )
    torch.testing.assert_close(twice[:, ::2], videos[-1], rtol=1e-4, atol=1e-5)
    assert (twice[:, 1::2] - twice[:, :-1:2]).abs().max() > 1e-4


def test_guidance_leads_the_velocities_and_is_charged():
    result = model(text={"encoder": "bytes", "layers": 1})
    sampler = SamplerConfig(1, torch.arange(2), guidance_scale=3.0)
    output = as_bytes(["left", "right"], result.config.text.length)
    guided = result.generate(frame_ticks(4).expand(2, -1), sampler, Conditioning(text=output))
    plain = result.generate(
        frame_ticks(4).expand(2, -1),
        sampler._replace(guidance_scale=1.0),
        Conditioning(text=output),
    )
    assert (guided.nats > 0).all()
    assert not plain.nats.any()
    assert (guided.frames - plain.frames).abs().max() > 1e-5


def test_order_one_is_the_default():
    plain = parse(SMALL | {"sde": {k: v for k, v in VECTOR.items() if k != "order"}})
    assert plain.sde.order == 1
    assert plain.sde.state_size == plain.sde.latent_size


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"model_type": "sde_matching"}, "sde.order is 2, but model_type is sde_matching"),
        ({"model_type": "follmer"}, "sde.order is 2, but model_type is follmer"),
        ({"observation": {"max_context": 3, "ends_fraction": 0.1}}, "a frame ahead"),
        ({"sde": VECTOR | {"order": 3}}, "sde.order is 3"),
    ],
)
def test_second_order_refuses_unsupported_settings(settings, named):
    with pytest.raises(UserError, match=named):
        parse(SMALL | {"sde": VECTOR} | settings)

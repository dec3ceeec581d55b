"""Every kind of model: windows without a seam, guidance and its cost, frames ahead, any rate."""

import factories
import pytest
import torch

from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.models.sampling import Conditioning, SamplerConfig
from sdevid.models.text import as_bytes
from sdevid.objectives import build_model
from sdevid.types import frame_ticks

SMALL = factories.settings(
    observation={"ends_fraction": 0.25, "keyframes_fraction": 0.25},
    text={"encoder": "bytes", "layers": 1},
    follmer={"steps": 4},
)
VECTOR = factories.VECTOR
MAP = factories.MAP
KINDS = ["latent_sde", "sde_matching", "follmer"]


def model(kind, sde=VECTOR, **more):
    torch.manual_seed(0)
    result = build_model(parse(SMALL | {"model_type": kind, "sde": sde} | more))
    return factories.shake(result)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [{}, {"sde": MAP, "consistency": {"warp": True}}])
def test_windows_carry_the_state_with_no_seam(kind, more):
    result = model(kind, **more)
    ticks = frame_ticks(60).expand(2, -1)  # ten times the training length
    sampler = SamplerConfig(seed=3, serial=torch.arange(2))
    whole = result.generate(ticks, sampler).frames
    parts = list(result.chunks(ticks, sampler, size=7))
    assert [part.frames.shape[1] for part in parts] == [7] * 8 + [4]
    torch.testing.assert_close(torch.cat([p.frames for p in parts], 1), whole, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_free_video_of_one_frame_is_the_start_itself(kind):
    result, sampler = model(kind), SamplerConfig(seed=3, serial=torch.arange(2))
    one = result.generate(frame_ticks(1).expand(2, -1), sampler).frames
    two = result.generate(frame_ticks(2).expand(2, -1), sampler).frames
    torch.testing.assert_close(one, two[:, :1], rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_guidance_of_zero_begins_as_without_text(kind):
    result = model(kind, MAP | {"start": "birth"}, birth={"steps": 4, "hidden": 16, "heads": 2})
    ticks, serial = frame_ticks(4).expand(2, -1), torch.arange(2)
    text = Conditioning(text=as_bytes(["a disc", "runs"], 12))
    away = result.generate(ticks, SamplerConfig(3, serial, guidance_scale=0.0), text)
    none = result.generate(ticks, SamplerConfig(3, serial))
    first, plain = away.frames[:, :1], none.frames[:, :1]
    torch.testing.assert_close(first, plain, rtol=0, atol=2e-5)
    assert bool(away.frames.isfinite().all())
    assert bool((away.nats > 0).all())


@torch.no_grad()
def test_bridge_far_from_its_training_stays_finite():
    result = model("follmer", MAP)
    for parameter in result.bridge.network.parameters():
        parameter *= 20
    ticks = frame_ticks(60).expand(2, -1)
    move = result.transition(
        torch.zeros(2, 2),
        result.encode_context(ticks, Conditioning(), False)[0],
        SamplerConfig(0, torch.arange(2)),
    )
    states = move(torch.full((2, *result.latent_shape), 30.0), ticks).states
    most = 30 + result.config.follmer.drift_bound * result.config.follmer.noise * 8**-0.5 * 60
    assert states.abs().max() < 1.1 * most


@pytest.mark.parametrize("kind", ["latent_sde", "sde_matching"])
def test_same_seed_at_twice_the_rate_keeps_shared_frames(kind):
    """Equal to rounding on the same solver steps; else as far apart as halving the steps takes."""
    result = model(kind)
    slow, fast = frame_ticks(5).expand(2, -1), frame_ticks(9, 2).expand(2, -1)
    sampler = SamplerConfig(seed=1, serial=torch.arange(2))
    want = result.generate(slow, sampler._replace(steps_per_frame=4)).frames
    same = result.generate(fast, sampler._replace(steps_per_frame=2)).frames
    torch.testing.assert_close(same[:, ::2], want, rtol=0, atol=2e-5)
    errors = []
    for steps in (4, 16):
        coarse = result.generate(slow, sampler._replace(steps_per_frame=steps)).frames
        fine = result.generate(fast, sampler._replace(steps_per_frame=steps)).frames
        errors.append((fine[:, ::2] - coarse).abs().max())
    assert errors[0] < 0.02  # of the range of a pixel
    assert errors[1] < 0.5 * errors[0]  # order 1 in the step, so a quarter


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sde", [VECTOR, MAP])
def test_guidance_moves_the_video_and_costs_nats(kind, sde):
    result = model(kind, sde)
    ticks, sampler = frame_ticks(5).expand(2, -1), SamplerConfig(seed=1, serial=torch.arange(2))
    conditioning = Conditioning(text=as_bytes(["a disc that runs"] * 2, 32))
    plain = result.generate(ticks, sampler, conditioning)
    assert (plain.nats == 0).all()
    steered = [
        result.generate(ticks, sampler._replace(guidance_scale=s), conditioning) for s in (2, 3)
    ]
    assert (steered[0].frames - plain.frames).abs().max() > 1e-5
    assert (steered[0].nats > 0).all()
    # the control grows as scale - 1, its cost as the square while the path is nearly the same
    torch.testing.assert_close(steered[1].nats, 4 * steered[0].nats, rtol=0.2, atol=0)
    other = result.generate(
        ticks,
        sampler._replace(guidance_scale=2),
        conditioning._replace(negative_text=as_bytes(["a square"] * 2, 32)),
    )
    assert (other.nats - steered[0].nats).abs().min() > 0
    same = result.generate(
        ticks,
        sampler._replace(guidance_scale=2),
        conditioning._replace(negative_text=conditioning.text),
    )
    assert (same.nats == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_future_frame_bears_on_earlier_frames_alone(kind):
    result = model(kind)
    ticks, sampler = frame_ticks(6).expand(2, -1), SamplerConfig(seed=1, serial=torch.arange(2))
    frame = torch.rand(2, 1, 1, 16, 16)
    ahead = result.generate(ticks[:, :5], sampler, Conditioning(frame, ticks[:, 5:]))
    other = result.generate(ticks[:, :5], sampler, Conditioning(1 - frame, ticks[:, 5:]))
    assert (ahead.frames - other.frames).abs().max() > 1e-4
    toward = result.guide(
        result.encode_context(ticks, Conditioning(frame, ticks[:, 3:4]), is_guided=False)[0].future,
        ticks[:, 2:5],
    )
    assert toward.shift[:, 0].abs().max() > 0
    assert toward.shift[:, 1:].abs().max() == 0  # at the frame itself, and after it
    assert toward.pull[:, 1:].abs().max() == 0


def test_full_pull_ends_at_the_frame_ahead():
    """dz = (target - z) / (time left) dt + g dW is a bridge: its last step lands on the target."""
    result = model("latent_sde", VECTOR | {"steps_per_frame": 1})
    torch.nn.init.zeros_(result.prior.drift.last.weight)
    torch.nn.init.zeros_(result.prior.drift.last.bias)
    torch.nn.init.ones_(result.guide.weight)
    ticks, sampler = (
        frame_ticks(6).expand(2, -1),
        SamplerConfig(0, torch.arange(2), temperature=0.0),
    )
    conditioning = Conditioning(torch.rand(2, 1, 1, 16, 16), ticks[:, 5:])
    context, _ = result.encode_context(ticks, conditioning, is_guided=False)
    move = result.transition(torch.zeros(2, 2), context, sampler)
    value = move(torch.randn(2, 3), ticks).states
    target = result.guide(context.future, ticks[:, 4:5]).target[:, 0]
    torch.testing.assert_close(value[:, -1], target)
    torch.testing.assert_close(value[:, -1] - value[:, -2], value[:, -2] - value[:, -3])


@pytest.mark.parametrize("solver", ["heun", "midpoint", "milstein", "reversible_heun", "srk"])
def test_every_solver_comes_to_the_same_video(solver):
    result = model("latent_sde", VECTOR | {"steps_per_frame": 16})
    ticks, serial = frame_ticks(4).expand(2, -1), torch.arange(2)
    conditioning = Conditioning(
        torch.rand(2, 1, 1, 16, 16), ticks[:, 3:], as_bytes(["disc"] * 2, 8)
    )
    sampler = SamplerConfig(1, serial, guidance_scale=2.0)
    near = result.generate(ticks, sampler, conditioning)
    value = result.generate(ticks, sampler._replace(solver=solver), conditioning)
    torch.testing.assert_close(value.frames, near.frames, rtol=0, atol=0.015)  # Euler's error
    torch.testing.assert_close(value.nats, near.nats, rtol=0.1, atol=1e-6)


def test_bridge_takes_no_other_solver():
    result = model("follmer")
    with pytest.raises(UserError, match="euler_maruyama alone"):
        result.generate(frame_ticks(3)[None], SamplerConfig(0, torch.tensor([0]), solver="heun"))

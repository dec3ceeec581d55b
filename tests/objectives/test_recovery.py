"""Every objective learns the law of a light whose brightness is an OU process seen with noise.

Drift and diffusion are read from generated video: with a the autocorrelation a frame apart,
theta = -log(a) / dt, and sigma from the innovations' variance. Stated error: 25 % of sigma and
40 % of theta, of a model trained for a minute. The frames' own noise is 2 % of the variance, which
alone raises theta by 11 % where a model takes it for motion, as follmer's does.
"""

import math

import numpy as np
import pytest
import torch

from sdevid.config import parse
from sdevid.data.synthetic import OrnsteinUhlenbeck
from sdevid.models.sampling import Conditioning, SamplerConfig
from sdevid.objectives import build
from sdevid.types import as_frames, frame_ticks

THETA, SIGMA, GAIN, NOISE, FPS, FRAMES = 1.5, 0.6, 0.25, 0.05, 8.0, 12
STEPS, BATCH, RATE = 800, 32, 3e-3
SETTINGS = {
    "frame_size": 4,
    "channels": 1,
    "sequence_length": FRAMES,
    "fps": FPS,
    "sde": {
        "latent_size": 1,
        "content_size": 1,
        "hidden": 32,
        "steps_per_frame": 1,
        "diffusion_start": 0.35,
        "posterior_drift": "own",
    },
    "encoder": {"channels": 4, "features": 32, "layers": 1, "heads": 2, "map_size": 4},
    "observation": {"scale": NOISE, "max_context": 0},
    "follmer": {"steps": 64},
    "text": {"encoder": "none"},
}


def clips(rng, count):
    path = OrnsteinUhlenbeck(THETA, 0.0, SIGMA).simulate(rng, count, np.arange(FRAMES) / FPS)
    light = 0.5 + GAIN * path[..., None, None, None]
    light = light + NOISE * rng.standard_normal((count, FRAMES, 4, 4, 1))
    return torch.from_numpy((light.clip(0, 1) * 255).round().astype(np.uint8))


def trained(kind, **more):
    torch.manual_seed(0)
    clip_objective = build(parse(SETTINGS | {"model_type": kind} | more))
    prior = clip_objective.prior_parameter_names()
    groups = [[], []]
    for name, parameter in clip_objective.named_parameters():
        groups[name in prior].append(parameter)
    optimizer = torch.optim.Adam([{"params": part} for part in groups], lr=RATE)
    rng = np.random.default_rng(0)
    data, ticks = clips(rng, 2048), frame_ticks(FRAMES).expand(BATCH, -1)
    for step in range(STEPS):
        rate = RATE * (0.5 * (1 + math.cos(math.pi * step / STEPS)) + 0.02)
        for group, ratio in zip(optimizer.param_groups, (1, 2), strict=True):
            group["lr"] = ratio * rate
        video = data[torch.from_numpy(rng.integers(0, len(data), BATCH))]
        serial = torch.arange(step * BATCH, (step + 1) * BATCH)
        weight = min(1.0, 0.2 + step / (0.3 * STEPS))
        optimizer.zero_grad()
        clip_objective(video, ticks, serial, weight)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(clip_objective.parameters(), 1.0)
        optimizer.step()
    return clip_objective.eval()


def law(path):
    """theta and sigma of paths (clips, time)."""
    path = path - path.mean()
    a = (path[:, 1:] * path[:, :-1]).sum() / (path[:, :-1] ** 2).sum()
    theta = -math.log(a) * FPS
    left = ((path[:, 1:] - a * path[:, :-1]) ** 2).mean()
    return theta, math.sqrt(left * 2 * theta / (1 - a * a))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["latent_sde", "sde_matching", "follmer"])
def test_drift_and_diffusion_are_recovered(kind):
    result, count = trained(kind), 512
    ticks = frame_ticks(32).expand(count, -1)
    bridges = ("interpolant", "follmer") if kind == "follmer" else (None,)
    for bridge in bridges:
        sampler = SamplerConfig(seed=1, serial=torch.arange(count), bridge_diffusion=bridge)
        video = result.model.generate(ticks, sampler).frames
        path = ((video.mean((2, 3, 4)) - 0.5) / GAIN).double().numpy()
        theta, sigma = law(path[:, 6:])  # the first frames are p(z_0)'s
        assert sigma == pytest.approx(SIGMA, rel=0.25), bridge
        assert theta == pytest.approx(THETA, rel=0.4), bridge


@pytest.mark.slow
def test_model_trained_on_both_ends_bends_to_the_last_frame():
    """Of OU over 1.4 s, the last frame tells much of the frames before it and none of the first."""
    observation = {"scale": NOISE, "max_context": 2, "free_fraction": 0.2, "ends_fraction": 0.6}
    model = trained("latent_sde", observation=observation).model
    count, draws = 256, 4
    frames = as_frames(clips(np.random.default_rng(9), count))
    ticks = frame_ticks(FRAMES).expand(count, -1)

    def error(indices):  # of the mean of some draws, at each frame but the first
        conditioning = Conditioning(frames[:, indices], ticks[:, indices])
        samplers = (SamplerConfig(seed=seed, serial=torch.arange(count)) for seed in range(draws))
        video = [model.generate(ticks[:, 1:], sampler, conditioning).frames for sampler in samplers]
        apart = torch.stack(video).mean(0).mean((2, 3, 4)) - frames[:, 1:].mean((2, 3, 4))
        return apart.square().mean(0).sqrt() / GAIN

    first, both = error([0]), error([0, FRAMES - 1])
    assert both[-1] < 0.5 * first[-1]
    assert both[-2] < 0.75 * first[-2]
    assert both[0] == pytest.approx(float(first[0]), rel=0.15)

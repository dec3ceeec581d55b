"""A model on the latents of a frozen autoencoder: what it is shown, scored on, and draws."""

from __future__ import annotations

import shutil

import factories
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.distributions import Laplace, Normal

from sdevid import objectives
from sdevid.autoencoder.folder import identity
from sdevid.autoencoder.frozen import FrozenAutoencoder
from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.models.likelihood import build_likelihood
from sdevid.models.sampling import Conditioning, SamplerConfig
from sdevid.models.text import Text, as_bytes
from sdevid.settings.observation import ObservationConfig
from sdevid.types import frame_ticks

KINDS = ("latent_sde", "sde_matching", "follmer")


def settings(folder, **changes):
    """A small model of 16 x 16 frames in colour, on TAEF2's 2 x 2 latents."""
    small = {"channels": 3, "sde": factories.MAP, "encoder": {"frozen": str(folder), "map_size": 2}}
    for name, value in changes.items():
        small[name] = small.get(name, {}) | value if isinstance(value, dict) else value
    return factories.settings(**small)


def clips(count: int = 2):
    video, ticks, serial = factories.clips(count)
    return video.repeat(1, 1, 1, 1, 3), ticks, serial


@pytest.mark.parametrize("kind", KINDS)
def test_every_objective_trains_all_its_weights_on_latents(kind, taef2):
    config = parse(
        settings(
            taef2,
            model_type=kind,
            sde={"start": "birth"},
            birth={"hidden": 16, "heads": 2, "depth": 1},
            text={"encoder": "bytes", "layers": 1, "length": 8},
            observation={"keyframes_fraction": 0.5},
        )
    )
    objective = objectives.build(config)
    factories.shake(objective)
    video, ticks, serial = clips(4)
    text = as_bytes(["left", "right", "up", ""], 8)
    objective(video, ticks, serial, 1.0, tokens=text.tokens, mask=text.mask)["loss"].backward()
    stuck = [n for n, p in objective.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in stuck if "text.null" not in name] == []
    assert not any("autoencoder" in name for name in objective.state_dict())


def test_stored_latents_have_the_loss_of_their_frames(taef2):
    objective = objectives.build(parse(settings(taef2)))
    video, ticks, serial = clips()
    frozen = FrozenAutoencoder(taef2)
    stored = torch.stack([torch.from_numpy(frozen.stored(one.numpy())) for one in video])
    from_frames = objective(video, ticks, serial, 1.0)["loss"]
    torch.testing.assert_close(
        objective(stored, ticks, serial, 1.0)["loss"], from_frames, rtol=1e-3, atol=0
    )


def test_stored_scale_is_drawn_by_the_serial(taef2):
    pictures = objectives.build_model(parse(settings(taef2))).pictures
    mean, scale = torch.randn(64, 6, 2, 2, 32), torch.full((64, 6, 2, 2, 32), 0.5)
    stored = torch.cat([mean, scale], dim=-1).half()
    drawn = pictures.drawn(stored, torch.arange(64)).permute(0, 1, 3, 4, 2)
    assert (drawn - mean).std().item() == pytest.approx(0.5, rel=0.02)
    alone = pictures.drawn(stored[7:8], torch.tensor([7])).permute(0, 1, 3, 4, 2)
    torch.testing.assert_close(alone, drawn[7:8])


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_frames_whatever_the_chunk(kind, taef2):
    model = objectives.build_model(parse(settings(taef2, model_type=kind))).eval()
    factories.shake(model)
    frames = torch.rand(2, 3, 3, 16, 16)
    ticks = frame_ticks(8).expand(2, -1)
    given_frames = Conditioning(frames, ticks[:, :3])
    whole, pieces = (
        torch.cat(
            [c.frames for c in model.chunks(ticks[:, 3:], SamplerConfig(), given_frames, n)], 1
        )
        for n in (8, 2)
    )
    assert whole.shape == (2, 5, 3, 16, 16)
    assert 0 <= whole.min() < whole.max() <= 1
    torch.testing.assert_close(whole, pieces)


def test_picture_is_the_decoded_latent(taef2):
    model = objectives.build_model(parse(settings(taef2))).eval()
    factories.shake(model)
    latents = next(model._chunks(frame_ticks(4).expand(1, -1), SamplerConfig(), Conditioning(), 4))
    chunk = next(model.chunks(frame_ticks(4).expand(1, -1), SamplerConfig(), None, 4))
    want = FrozenAutoencoder(taef2).decode(latents.frames[0].detach())
    torch.testing.assert_close(chunk.frames[0], want)


def test_prompts_reach_what_is_drawn(taef2):
    text = {"encoder": "bytes", "layers": 1, "length": 8}
    model = objectives.build_model(parse(settings(taef2, text=text))).eval()
    factories.shake(model, 0.3)
    ticks = frame_ticks(3).expand(1, -1)

    def made(caption: str) -> torch.Tensor:
        text: Text = as_bytes([caption], 8)
        return model.generate(ticks, SamplerConfig(), Conditioning(text=text)).frames

    assert (made("left") - made("right")).abs().max() > 1e-4


@pytest.mark.parametrize(("name", "law"), [("gaussian", Normal), ("laplace", Laplace)])
def test_fitted_scale_is_that_of_each_channel(name, law):
    likelihood = build_likelihood(ObservationConfig(likelihood=name, scale=0.3), latents=3)
    torch.nn.init.uniform_(likelihood.log_scale, -1, 1)
    decoded, target = torch.randn(2, 4, 3, 5, 5), torch.randn(2, 4, 3, 5, 5)
    scale = likelihood.log_scale.exp()[:, None, None]
    want = law(decoded, scale).log_prob(target).flatten(2).sum(2)
    torch.testing.assert_close(likelihood.log_prob(decoded, target), want)


@given(st.floats(0.05, 2.0))
def test_best_scale_is_the_error_of_its_channel(size):
    likelihood = build_likelihood(ObservationConfig(scale=size), latents=1)
    error = torch.randn(1, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    error = size * error / error.square().mean().sqrt()
    likelihood.log_prob(error, torch.zeros_like(error)).sum().backward()
    assert likelihood.log_scale.grad.abs().max() < 1e-3


def test_latents_not_observed_cost_nothing():
    likelihood = build_likelihood(ObservationConfig(scale=0.3), latents=2)
    target = torch.randn(1, 3, 2, 4, 4)
    target[:, 1] = torch.nan
    assert likelihood.log_prob(torch.zeros(1, 3, 2, 4, 4), target)[0, 1] == 0


FAULTS = [
    ({"channels": 1}, "of 3 channels, but channels is 1"),
    ({"frame_size": 20, "encoder": {"map_size": 5}}, "frame_size is 20"),
    ({"encoder": {"map_size": 4}}, "the map no larger than the latents"),
    ({"encoder": {"frozen_fingerprint": "0" * 16}}, "trained on the latents of 0000"),
    ({"encoder": {"frozen": "nowhere"}}, "nowhere: no autoencoder is there"),
    ({"observation": {"likelihood": "two_part"}}, "observation.likelihood is two_part"),
    ({"sde": {"latent": "particles"}, "encoder": {"map_size": 2}}, "sde.latent is particles"),
]


@pytest.mark.parametrize(("changes", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_settings_that_do_not_fit_the_autoencoder_are_refused(changes, message, taef2):
    with pytest.raises(UserError, match=message):
        objectives.build_model(parse(settings(taef2, **changes)))


def test_another_autoencoder_in_its_place_is_named(taef2, tmp_path):
    folder = shutil.copytree(taef2, tmp_path / "pictures")
    named = {"frozen_fingerprint": identity(folder)["fingerprint"]}
    small = settings(folder, encoder=named)
    objectives.build_model(parse(small))
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, weights)
    with pytest.raises(UserError, match=f"trained on the latents of {named['frozen_fingerprint']}"):
        objectives.build_model(parse(small))

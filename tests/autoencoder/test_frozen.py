"""Frozen autoencoders from folders: diffusers' classes and TAEF2, and folders that hold none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from sdevid.autoencoder import folder as folders
from sdevid.autoencoder import taef2 as taef2_module
from sdevid.autoencoder.frozen import FRAMES_AT_ONCE, FrozenAutoencoder
from sdevid.autoencoder.training import set_scaling
from sdevid.errors import UserError


def pictures(count: int, channels: int, side: int = 16) -> torch.Tensor:
    torch.manual_seed(3)
    return torch.rand(count, channels, side, side)


def altered(folder: Path, copy: Path, **settings: object) -> Path:
    """A copy of `folder` whose config.json says something else."""
    shutil.copytree(folder, copy)
    metadata = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(metadata | settings))
    return copy


def test_kl_gives_the_published_class_its_mean_and_scale(kl, tmp_path):
    from diffusers import AutoencoderKL

    folder = altered(kl, tmp_path / "kl", scaling_factor=0.5, shift_factor=0.25)
    frames = pictures(2, 1)
    result = FrozenAutoencoder(folder).encode(frames)
    with torch.no_grad():
        want = AutoencoderKL.from_pretrained(kl).eval().encode(2 * frames - 1).latent_dist
    torch.testing.assert_close(result.mean, 0.5 * (want.mean - 0.25))
    torch.testing.assert_close(result.scale, 0.5 * want.std)


def test_kl_decodes_as_the_published_class(kl, tmp_path):
    from diffusers import AutoencoderKL

    folder = altered(kl, tmp_path / "kl", scaling_factor=0.5, shift_factor=0.25)
    latents = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        want = AutoencoderKL.from_pretrained(kl).eval().decode(latents / 0.5 + 0.25).sample
    result = FrozenAutoencoder(folder).decode(latents)
    torch.testing.assert_close(result, (0.5 * (want + 1)).clamp(0, 1))


@pytest.mark.parametrize("kind", ["AutoencoderTiny", "AutoencoderDC"])
def test_other_published_classes_encode_to_a_point(kind, tmp_path):
    import diffusers

    widths = (8, 8, 8)
    settings = {
        "AutoencoderTiny": {
            "encoder_block_out_channels": widths,
            "decoder_block_out_channels": widths,
            "num_encoder_blocks": (1, 1, 1),
            "num_decoder_blocks": (1, 1, 1),
            "latent_channels": 4,
        },
        "AutoencoderDC": {
            "latent_channels": 4,
            "encoder_block_out_channels": (4, 8, 8),
            "decoder_block_out_channels": (4, 8, 8),
            "encoder_layers_per_block": (1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1),
            "encoder_qkv_multiscales": ((), (), ()),
            "decoder_qkv_multiscales": ((), (), ()),
        },
    }
    torch.manual_seed(0)
    result = getattr(diffusers, kind)(**settings[kind]).eval()
    result.save_pretrained(tmp_path)
    frozen, frames = FrozenAutoencoder(tmp_path), pictures(2, 3)
    assert (frozen.description.factor, frozen.description.latent_channels) == (4, 4)
    latents = frozen.encode(frames)
    assert latents.scale is None
    with torch.no_grad():
        want = result.decode(result.encode(2 * frames - 1)[0]).sample
    torch.testing.assert_close(frozen.decode(latents.mean), (0.5 * (want + 1)).clamp(0, 1))


def test_taef2_computes_its_published_layers(taef2):
    tensors = load_file(taef2 / taef2_module.WEIGHTS)

    def conv(x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        weight = tensors[f"{name}.weight"]
        return functional.conv2d(
            x, weight, tensors.get(f"{name}.bias"), stride, weight.shape[-1] // 2
        )

    def block(x: torch.Tensor, name: str) -> torch.Tensor:
        if f"{name}.pool.0.weight" in tensors:
            wide = conv(x, f"{name}.pool.0").unflatten(1, (4, 64))
            spread = wide.var((2, 3, 4), unbiased=False, keepdim=True)
            wide = (wide - wide.mean((2, 3, 4), keepdim=True)) * (spread + 1e-5).rsqrt()
            scale, level = (tensors[f"{name}.pool.1.{k}"] for k in ("weight", "bias"))
            wide = wide.flatten(1, 2) * scale[:, None, None] + level[:, None, None]
            x = x + conv(wide.relu(), f"{name}.pool.3")
        y = conv(x, f"{name}.conv.0").relu()
        return (x + conv(conv(y, f"{name}.conv.2").relu(), f"{name}.conv.4")).relu()

    frames = pictures(2, 3, 32)
    x = block(conv(frames, "encoder.0"), "encoder.1")
    for stage in (2, 6, 10):
        x = conv(x, f"encoder.{stage}", stride=2)
        for k in range(3):
            x = block(x, f"encoder.{stage + 1 + k}")
    latents = conv(x, "encoder.14")
    frozen = FrozenAutoencoder(taef2)
    torch.testing.assert_close(frozen.encode(frames).mean, latents)
    x = conv(3 * torch.tanh(latents / 3), "decoder.1").relu()
    for stage in (3, 8, 13):
        for k in range(3):
            x = block(x, f"decoder.{stage + k}")
        x = conv(functional.interpolate(x, scale_factor=2), f"decoder.{stage + 4}")
    want = conv(block(x, "decoder.18"), "decoder.19").clamp(0, 1)
    torch.testing.assert_close(frozen.decode(latents), want)


def test_frames_have_no_say_in_each_other(taef2):
    frozen, frames = FrozenAutoencoder(taef2), pictures(FRAMES_AT_ONCE + 3, 3, 8)
    together = frozen.encode(frames).mean
    torch.testing.assert_close(together[-1:], frozen.encode(frames[-1:]).mean)
    torch.testing.assert_close(together[:1], frozen.encode(frames[:1]).mean)
    assert len(frozen.decode(together)) == len(frames)


def test_frame_that_nobody_observed_has_no_latents(taef2):
    frozen, frames = FrozenAutoencoder(taef2), pictures(3, 3)
    frames[0] = torch.nan
    frames[1, :, :2] = torch.nan
    result = frozen.encode(frames).mean
    assert result[0].isnan().all()
    grey = frames[1:2].nan_to_num(nan=0.5)
    torch.testing.assert_close(result[1:2], frozen.encode(grey).mean)


def test_stored_latents_are_means_then_scales_of_each_channel(kl):
    frozen = FrozenAutoencoder(kl)
    video = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1), dtype=np.uint8)
    result = frozen.stored(video)
    latents = frozen.encode(torch.from_numpy(video).permute(0, 3, 1, 2) / 255)
    want = torch.cat([latents.mean, latents.scale], dim=1).permute(0, 2, 3, 1)
    assert (result.dtype, result.shape) == (np.float16, (2, 4, 4, 6))
    np.testing.assert_allclose(result, want.numpy(), rtol=2**-10, atol=1e-6)


def test_scaling_that_is_set_gives_the_data_unit_deviation(kl, tmp_path):
    folder, frames = altered(kl, tmp_path / "kl"), pictures(8, 1)
    set_scaling(folder, FrozenAutoencoder(folder).encode(frames).mean)
    result = FrozenAutoencoder(folder).encode(frames).mean
    torch.testing.assert_close(result.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(result.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


def test_copy_elsewhere_is_the_same_autoencoder(taef2, tmp_path):
    copy = shutil.copytree(taef2, tmp_path / "copy")
    assert folders.identity(copy) == folders.identity(taef2)
    tensors = load_file(copy / taef2_module.WEIGHTS)
    save_file({name: 1.01 * t for name, t in tensors.items()}, copy / taef2_module.WEIGHTS)
    assert folders.identity(copy)["fingerprint"] != folders.identity(taef2)["fingerprint"]


def spoil_nothing_there(folder: Path) -> None:
    shutil.rmtree(folder)


def spoil_no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def spoil_other_class(folder: Path) -> None:
    (folder / "config.json").write_text('{"_class_name": "UNet2DModel"}')


def spoil_fields(folder: Path) -> None:
    (folder / "config.json").write_text('{"_class_name": "AutoencoderKL", "in_channels": 1}')


def spoil_weights_gone(folder: Path) -> None:
    next(folder.glob("*.safetensors")).unlink()


def spoil_pickle(folder: Path) -> None:
    weights = next(folder.glob("*.safetensors"))
    weights.rename(folder / "model.bin")


def spoil_other_weights(folder: Path) -> None:
    weights = next(folder.glob("*.safetensors"))
    tensors = load_file(weights)
    tensors.pop(min(tensors))
    save_file(tensors, weights)


FAULTS = {
    spoil_nothing_there: "no autoencoder is there",
    spoil_no_json: "no autoencoder is there",
    spoil_other_class: "_class_name UNet2DModel",
    spoil_fields: "out of form",
    spoil_weights_gone: "holds no weights",
    spoil_pickle: "model.bin, a pickle",
    spoil_other_weights: "does not load",
}


@pytest.mark.parametrize("name", ["kl", "taef2"])
@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__)
def test_folder_that_is_no_autoencoder_is_named(spoil, name, request, tmp_path):
    folder = shutil.copytree(request.getfixturevalue(name), tmp_path / "folder")
    spoil(folder)
    with pytest.raises(UserError, match=FAULTS[spoil]) as error:
        FrozenAutoencoder(folder)
    assert str(folder) in str(error.value)


def test_weights_of_another_network_are_not_converted(tmp_path):
    torch.save({"0.weight": torch.zeros(2)}, tmp_path / "one.pth")
    with pytest.raises(UserError, match=r"one\.pth does not hold this part of TAEF2"):
        taef2_module.convert(tmp_path / "one.pth", tmp_path / "one.pth", tmp_path / "made")
    assert not (tmp_path / "made").exists()

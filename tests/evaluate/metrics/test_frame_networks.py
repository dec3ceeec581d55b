"""Frozen networks of pictures as features of video: SqueezeNet, TorchScript, faults."""

import base64
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from sdevid.errors import UserError
from sdevid.evaluate.metrics import frame_networks
from sdevid.evaluate.metrics.frame_networks import squeezenet, video_features
from sdevid.evaluate.metrics.kid import standardised
from sdevid.evaluate.statistics.distribution import kernel_distance

CPU = torch.device("cpu")
# relu of a 1 x 1 convolution by weights -5/4, -4/4 .. 6/4 of (4, 3), written by onnx.helper
ONNX = (
    "CAg6owEKDwoBeAoBdxIBeSIEQ29udgoMCgF5EgF6IgRSZWx1EgFnKj8IBAgDCAEIARABQgF3SjAAAKC/AACAvwAAQL8A"
    "AAC/AACAvgAAAAAAAIA+AAAAPwAAQD8AAIA/AACgPwAAwD9aHgoBeBIZChcIARITCgMSAW4KAggDCgMSAWgKAxIBd2Ie"
    "CgF6EhkKFwgBEhMKAxIBbgoCCAQKAxIBaAoDEgF3QgQKABAN"
)
WEIGHTS = os.environ.get("SDEVID_SQUEEZENET")  # squeezenet1_0_imagenet.npz, where it is at hand


def write_squeezenet(path: Path, left_out: str = "") -> Path:
    """Random weights in SqueezeNet 1.0's shapes."""
    rng, arrays, inputs = np.random.default_rng(0), {}, 96
    arrays["conv1"] = (96, 3, 7)
    for name, squeezed, wide in zip(
        frame_networks._FIRES,
        (16, 16, 32, 32, 48, 48, 64, 64),
        (64, 64, 128, 128, 192, 192, 256, 256),
        strict=True,
    ):
        arrays[f"{name}.conv1x1_1"] = (squeezed, inputs, 1)
        arrays[f"{name}.conv1x1_2"] = (wide, squeezed, 1)
        arrays[f"{name}.conv3x3_2"] = (wide, squeezed, 3)
        inputs = 2 * wide
    held = {}
    for name, (outputs, inner, side) in arrays.items():
        if name != left_out:
            scale = (2 / (inner * side**2)) ** 0.5
            held[f"{name}.w"] = scale * rng.normal(size=(outputs, inner, side, side))
            held[f"{name}.b"] = np.zeros(outputs)
    np.savez(path, **{k: v.astype(np.float16) for k, v in held.items()})
    return path


class Mean(nn.Module):
    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.mean([2, 3])


def test_squeezenet_ends_in_512_maps_of_13(tmp_path):
    network = squeezenet(write_squeezenet(tmp_path / "s.npz"), CPU)
    maps = network(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert maps.shape == (2, 512, 13, 13)
    assert (maps >= 0).all()
    assert maps.std() > 0


@pytest.mark.weights
@pytest.mark.skipif(not WEIGHTS, reason="SDEVID_SQUEEZENET names no file")
def test_squeezenet_names_a_cat():
    from skimage import data

    frames = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None].float() / 127.5 - 1
    maps = squeezenet(Path(WEIGHTS), CPU)(frames[..., 75:375])
    with np.load(WEIGHTS) as held:
        weight, bias = (torch.from_numpy(held[f"conv_final.{k}"]).float() for k in "wb")
    scores = functional.relu(functional.conv2d(maps, weight, bias)).mean((2, 3))[0]
    assert set(scores.topk(3).indices.tolist()) == {281, 282, 285}  # cats


def test_features_hold_mean_and_change_of_frames(tmp_path):
    torch.jit.script(Mean()).save(str(tmp_path / "mean.pt"))
    network = video_features(tmp_path / "mean.pt", (8, 8), CPU)
    video = torch.stack([torch.full((3, 8, 8), v) for v in (0.0, 1.0, 0.5)], dim=1)[None]
    features = network(video)
    assert features.shape == (1, 6)
    torch.testing.assert_close(features[0, :3], torch.full((3,), 0.5))
    torch.testing.assert_close(features[0, 3:], torch.full((3,), 0.75))
    grey = network(video[:, :1])  # one channel stands for three
    torch.testing.assert_close(grey, features)


@pytest.mark.slow
def test_blur_of_half_a_pixel_is_told_from_real(tmp_path):
    """Random weights do here; with trained ones 64 frames are enough."""
    network = video_features(write_squeezenet(tmp_path / "s.npz"), (32, 32), CPU)
    rng = np.random.default_rng(1)
    film = torch.from_numpy(rng.normal(size=(24, 1, 2, 32, 32))).float().clamp(-1, 1)
    kernel = torch.tensor([0.1, 0.8, 0.1])
    blurred = functional.conv2d(
        film.flatten(0, 2)[:, None], (kernel[:, None] * kernel)[None, None], padding=1
    ).view(film.shape)
    with torch.no_grad():
        a, b, c = (network(part).double().numpy() for part in (film[:12], film[12:], blurred[12:]))
    scale = a.std(axis=0) + 1e-6
    a, b, c = ((part - a.mean(axis=0)) / scale for part in (a, b, c))
    assert kernel_distance(c, a).mean > 5 * abs(kernel_distance(b, a).mean)


def test_files_that_are_no_network_are_named(tmp_path):
    cut = write_squeezenet(tmp_path / "cut.npz", left_out="fire5.conv3x3_2")
    with pytest.raises(UserError, match=r"has no fire5\.conv3x3_2\.w, so it is not SqueezeNet"):
        video_features(cut, (32, 32), CPU)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(UserError, match="cannot be read as npz"):
        video_features(tmp_path / "text.npz", (32, 32), CPU)
    with pytest.raises(UserError, match=r"--features .* is no file"):
        video_features(tmp_path / "none.pt", (32, 32), CPU)


def test_onnx_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"sdevid\[onnx\]"):
        video_features(tmp_path / "net.onnx", (32, 32), CPU)


@pytest.mark.extra
def test_onnx_network_gives_its_own_features(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(base64.b64decode(ONNX))
    features = video_features(path, (8, 8), CPU)
    video = torch.rand(2, 3, 4, 8, 8) * 2 - 1
    weight = (torch.arange(12.0).view(4, 3, 1, 1) - 5) / 4
    frames = functional.conv2d(video.transpose(1, 2).flatten(0, 1), weight).relu().mean((2, 3))
    by_video = frames.unflatten(0, (2, 4))
    want = torch.cat([by_video.mean(1), by_video.diff(dim=1).abs().mean(1)], dim=1)
    torch.testing.assert_close(features(video), want)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"net\.onnx is no ONNX network"):
        video_features(path, (8, 8), CPU)


def test_feature_dead_in_real_videos_drowns_no_other():
    draw = np.random.default_rng(0)
    generated, real, training = (draw.normal(size=(64, 8)) for _ in range(3))
    for one in (generated, real, training):
        one[:, 0] = 0
    generated[0, 0] = 1e-3
    estimate = standardised(generated, real, training)
    assert max(np.abs(one).max() for one in estimate) < 6
    np.testing.assert_allclose(estimate[1][:, 1:].std(axis=0), 1)

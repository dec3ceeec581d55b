"""Frozen networks of pictures that the user gives, as features of video.

A TorchScript or ONNX network is called with float32 (frames, 3, height, width) in [-1, 1] and gives
(frames, size), or maps (frames, size, ...) that are averaged over places. An npz holds SqueezeNet
1.0's weights (`fire2.conv1x1_1.w` and so on), whose last maps are taken.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sdevid.errors import UserError
from sdevid.evaluate.metrics.networks import FeatureNetwork, load_torchscript, try_network

FrameNetwork = Callable[[Tensor], Tensor]

_SIDE = 227  # pixels that SqueezeNet was trained at
_MEAN_BGR = (104.0, 117.0, 123.0)
_FIRES = ("fire2", "fire3", "fire4", "fire5", "fire6", "fire7", "fire8", "fire9")
_POOLED = ("fire4", "fire8")


def video_features(path: Path, shape: tuple[int, int], device: torch.device) -> FeatureNetwork:
    """Load the network at `path` as features of video, tried on frames of `shape`.

    A video's features are the mean over time of its frames' features, and the mean size of their
    change from frame to frame. UserError where the file is no such network.
    """
    frames = _open(path, device)

    def features(video: Tensor) -> Tensor:
        count = video.shape[0]
        colour = video.expand(-1, 3, -1, -1, -1) if video.shape[1] == 1 else video
        each = frames(colour.transpose(1, 2).flatten(0, 1))
        each = each.flatten(2).mean(2) if each.dim() > 2 else each
        by_video = torch.unflatten(each, 0, (count, -1))
        change = by_video.diff(dim=1).abs().mean(1) if by_video.shape[1] > 1 else 0 * by_video[:, 0]
        return torch.cat([by_video.mean(1), change], dim=1)

    trial = torch.zeros(2, 3, 2, *shape, device=device)
    rule = f"must give features of frames of 3 x {shape[0]} x {shape[1]}"
    try_network(lambda: features(trial), lambda out: out.dim() == 2 and len(out) == 2, path, rule)
    return features


def _open(path: Path, device: torch.device) -> FrameNetwork:
    if path.suffix == ".npz":
        return squeezenet(path, device)
    if path.suffix == ".onnx":
        return _onnx(path)
    network: Any = load_torchscript(path, "--features").to(device).eval()
    return lambda frames: network(frames)


def squeezenet(path: Path, device: torch.device) -> FrameNetwork:
    """Load SqueezeNet 1.0 (Iandola et al. 2016) up to its last fire module.

    It gives maps (frames, 512, 13, 13). UserError where the file holds other weights.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            weights = {name: torch.from_numpy(held[name]).float().to(device) for name in held}
        wanted = ["conv1", *(f"{f}.conv3x3_2" for f in _FIRES)]
        missing = [name for name in wanted if f"{name}.w" not in weights]
    except (OSError, ValueError) as error:
        raise UserError(f"--features {path} cannot be read as npz: {error}") from error
    if missing:
        raise UserError(f"--features {path} has no {missing[0]}.w, so it is not SqueezeNet 1.0")

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        weight, bias = weights[f"{name}.w"], weights[f"{name}.b"]
        return functional.relu(functional.conv2d(x, weight, bias, stride, padding))

    def pool(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 2, ceil_mode=True)

    def network(frames: Tensor) -> Tensor:
        large = functional.interpolate(
            frames, (_SIDE, _SIDE), mode="bilinear", align_corners=False, antialias=True
        )
        mean = torch.tensor(_MEAN_BGR, device=device)[:, None, None]
        x = pool(conv(127.5 * (large.flip(1) + 1) - mean, "conv1", stride=2))
        for fire in _FIRES:
            squeezed = conv(x, f"{fire}.conv1x1_1")
            wide = conv(squeezed, f"{fire}.conv3x3_2", padding=1)
            x = torch.cat([conv(squeezed, f"{fire}.conv1x1_2"), wide], dim=1)
            x = pool(x) if fire in _POOLED else x
        return x

    return network


def _onnx(path: Path) -> FrameNetwork:
    if importlib.util.find_spec("onnxruntime") is None:
        raise UserError(
            f"--features {path} is ONNX, which needs onnxruntime; pip install 'sdevid[onnx]'"
        )
    import onnxruntime

    try:
        session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions are its own, one a fault
        raise UserError(f"--features {path} is no ONNX network: {str(error)[:200]}") from error
    name = session.get_inputs()[0].name

    def network(frames: Tensor) -> Tensor:
        (output, *_) = session.run(None, {name: frames.cpu().numpy()})
        return torch.from_numpy(np.asarray(output, np.float32))

    return network

"""Feature networks of video: random ones made from a seed, and TorchScript ones of the user.

Nothing is downloaded. An I3D is called with float32 (videos, 3, time, 224, 224) in [-1, 1] and
gives (videos, size); where its forward knows `rescale`, `resize` and `return_features`, as the
exports of the FVD authors' network do, it is given False, False and True. An LPIPS is called with
two batches of (frames, 3, height, width) in [-1, 1] and gives a distance a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sdevid import frame_size
from sdevid.errors import UserError
from sdevid.evaluate.progress import batches
from sdevid.evaluate.statistics.estimate import Floats
from sdevid.evaluate.statistics.observed import Values

SEEDS = (0, 1, 2)  # of random features
_I3D_SIDE = 224
_I3D_ARGUMENTS = {"rescale": False, "resize": False, "return_features": True}

FeatureNetwork = Callable[[Tensor], Tensor]  # (videos, channels, time, height, width) in [-1, 1]


def random_features(seed: int, channels: int) -> FeatureNetwork:
    """Build a network of three random 3-D convolutions: 128 features of a video.

    They are mean and deviation over space and time. He's initialisation from the seed alone;
    nothing is trained, so distances between such features are no FVD and are comparable under the
    same seed and code only.
    """
    source = torch.Generator().manual_seed(seed)
    weights, inputs = [], channels
    for outputs in (16, 32, 64):
        scale = (2 / (27 * inputs)) ** 0.5
        weights.append(scale * torch.randn(outputs, inputs, 3, 3, 3, generator=source))
        inputs = outputs

    def network(video: Tensor) -> Tensor:
        for i, weight in enumerate(weights):
            stride = (2 if i and video.shape[2] > 3 else 1, 2, 2)
            video = functional.leaky_relu(
                functional.conv3d(video, weight.to(video.device), stride=stride, padding=1), 0.2
            )
        flat = video.flatten(2)
        return torch.cat([flat.mean(2), flat.std(2)], dim=1)

    return network


def video_network(path: Path, frames: int, device: torch.device) -> FeatureNetwork:
    """Load the TorchScript I3D at `path`, tried on two clips of `frames` frames.

    UserError where it is none, or does not give one row of features a clip.
    """
    module = load_torchscript(path, "--fvd_i3d").to(device).eval()
    forward: Any = module.forward
    known = {argument.name for argument in forward.schema.arguments}
    arguments = {name: value for name, value in _I3D_ARGUMENTS.items() if name in known}

    def network(video: Tensor) -> Tensor:
        colour = video.expand(-1, 3, -1, -1, -1) if video.shape[1] == 1 else video
        shape = (colour.shape[2], _I3D_SIDE, _I3D_SIDE)
        large = functional.interpolate(colour, shape, mode="trilinear", align_corners=False)
        features: Tensor = module(large, **arguments)
        return features

    trial = torch.zeros(2, 3, frames, 32, 32, device=device)
    rule = f"must give a row of features for each of two clips of {frames} frames"
    try_network(lambda: network(trial), lambda out: out.dim() == 2 and len(out) == 2, path, rule)
    return network


def image_distance(
    path: Path, shape: tuple[int, int], device: torch.device
) -> Callable[[Tensor, Tensor], Any]:
    """Load the TorchScript LPIPS at `path`, tried on two frames of `shape`.

    UserError where it is none, or does not give one distance for each pair.
    """
    module = load_torchscript(path, "--lpips").to(device).eval()

    def distance(a: Tensor, b: Tensor) -> Tensor:
        colour = [part.expand(-1, 3, -1, -1) if part.shape[1] == 1 else part for part in (a, b)]
        distances: Tensor = module(*colour)
        return distances

    trial = torch.zeros(2, 3, *shape, device=device)
    rule = f"must give one distance for each of two pairs of {frame_size.text(shape)} pixels"
    try_network(lambda: distance(trial, trial), lambda out: out.numel() == 2, path, rule)
    return lambda a, b: distance(a, b).flatten()


@torch.no_grad()
def features(network: FeatureNetwork, videos: Values, title: str, device: torch.device) -> Floats:
    """Compute features of videos (number, time, height, width, channels), in float64."""
    parts = []
    for part in batches(range(len(videos)), 16, title):
        some = torch.from_numpy(videos[part.start : part.stop]).to(device)
        parts.append(network(as_input(some)).double().cpu().numpy())
    return np.concatenate(parts)


def as_input(video: Tensor) -> Tensor:
    """Convert (videos, time, height, width, channels) to channels first, [0, 1] to [-1, 1].

    Other numbers than uint8 are in [0, 1] already.
    """
    scale = 127.5 if video.dtype == torch.uint8 else 0.5
    return video.movedim(-1, 1).float() / scale - 1


def load_torchscript(path: Path, option: str) -> nn.Module:
    """Load the network saved at `path`. UserError, naming `option`, where there is none."""
    if not path.is_file():
        raise UserError(f"{option} {path} is no file; give a network saved by torch.jit.save")
    try:
        module: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise UserError(
            f"{option} {path} is no TorchScript ({reason}); give a network saved by torch.jit.save"
        ) from error
    return module


def try_network(
    call: Callable[[], Any], fits: Callable[[Any], bool], path: Path, rule: str
) -> None:
    """Call a network of the user's. UserError with `rule` where it fails or its output is unfit."""
    try:
        with torch.no_grad():
            output = call()
    except Exception as error:  # whatever a network of the user's raises
        reason = str(error).strip().splitlines()[-1][:200]
        raise UserError(f"the network {path} {rule}, but fails: {reason}") from error
    if not isinstance(output, Tensor) or not fits(output):
        what = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"the network {path} {rule}, but gives {what}")

"""TAEF2, a small autoencoder to FLUX.2's latents (madebyollin/taesd, MIT).

32 channels at an eighth of the side, near unit deviation; pictures in [0, 1]. Its weights are
published as two pickles, which are read as tensors alone and written once as safetensors.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from sdevid import tensor_file
from sdevid.errors import UserError

WEIGHTS = "model.safetensors"
CONFIG: dict[str, Any] = {
    "_class_name": "TAEF2",
    "in_channels": 3,
    "latent_channels": 32,
    "stages": [64, 64, 64, 64],
}
_WIDTH, _POOLED, _GROUPS = 64, 256, 4
_BOUND = 3.0  # of a latent, softly


class _Block(nn.Module):
    """relu(x + three convolutions of it); where `pooled`, x first gains a branch normed by group
    over the whole picture."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*layers[:-1])
        self.pool = None
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(_WIDTH, _POOLED, 1, bias=False),
                nn.GroupNorm(_GROUPS, _POOLED),
                nn.ReLU(),
                nn.Conv2d(_POOLED, _WIDTH, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        out: Tensor = (x + self.conv(x)).relu()
        return out


class _SoftBound(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / _BOUND) * _BOUND


def _conv(inputs: int, outputs: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)


def _encoder() -> nn.Sequential:
    layers: list[nn.Module] = [_conv(3, _WIDTH), _Block(pooled=False)]
    for stage in range(3):
        layers.append(_conv(_WIDTH, _WIDTH, stride=2, bias=False))
        layers += [_Block(pooled=stage == 2) for _ in range(3)]
    return nn.Sequential(*layers, _conv(_WIDTH, CONFIG["latent_channels"]))


def _decoder() -> nn.Sequential:
    layers: list[nn.Module] = [_SoftBound(), _conv(CONFIG["latent_channels"], _WIDTH), nn.ReLU()]
    for stage in range(3):
        layers += [_Block(pooled=stage == 0) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), _conv(_WIDTH, _WIDTH, bias=False)]
    return nn.Sequential(*layers, _Block(pooled=False), _conv(_WIDTH, 3))


class TAEF2(nn.Module):
    """Encoder and decoder, each a plain sequence whose places name the published tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = _encoder(), _decoder()

    def encode(
        self, pictures: Float[Tensor, "n 3 height width"]
    ) -> Float[Tensor, "n 32 rows columns"]:
        """Encode pictures in [0, 1] to latents."""
        latents: Tensor = self.encoder(pictures)
        return latents

    def decode(
        self, latents: Float[Tensor, "n 32 rows columns"]
    ) -> Float[Tensor, "n 3 height width"]:
        """Decode latents to pictures, in [0, 1] but for overshoot."""
        pictures: Tensor = self.decoder(latents)
        return pictures


def load(folder: Path) -> TAEF2:
    """Load what `convert` wrote to `folder`. RuntimeError, OSError or SafetensorError otherwise."""
    with torch.device("meta"):
        model = TAEF2()
    model.load_state_dict(load_file(folder / WEIGHTS), assign=True)
    return model


def convert(encoder: Path, decoder: Path, folder: Path) -> None:
    """Write the two published files of weights to `folder`, as safetensors in float32.

    Raises UserError where they are not TAEF2's, or `folder` cannot be written.
    """
    model = TAEF2()
    for path, part in ((encoder, model.encoder), (decoder, model.decoder)):
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
            part.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        except (OSError, RuntimeError, AttributeError, pickle.UnpicklingError, EOFError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path} does not hold this part of TAEF2 ({type(error).__name__}: {reason}); give "
                "taef2_encoder.pth and taef2_decoder.pth of github.com/madebyollin/taesd"
            ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tensor_file.save(dict(model.state_dict()), folder / WEIGHTS)
        (folder / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output_dir {folder} cannot be written: {error}") from error

"""A frozen autoencoder: frames to latents and back. The only file that knows diffusers.

Nothing is fetched, no code of the folder is run, and of weights only safetensors are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

from sdevid.autoencoder import folder as folders
from sdevid.autoencoder import taef2
from sdevid.errors import UserError

FRAMES_AT_ONCE = 64  # which bounds memory


class EncodedFrames(NamedTuple):
    """Frames as the encoder sees them: near unit deviation."""

    mean: Float[Tensor, "frames channels rows columns"]
    scale: Float[Tensor, "frames channels rows columns"] | None  # None: it encodes to a point


class FrozenAutoencoder:
    """The autoencoder in a folder, in float32 and evaluation mode, its weights never trained.

    Raises UserError where the folder holds none that loads, or diffusers is not installed.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.folder = folder
        self.description = folders.describe(folder)
        self.identity = folders.identity(folder)
        self._module = _load(folder, self.description.kind).float().eval().requires_grad_(False)
        self._pixels_from = 0.0 if self.description.kind == "TAEF2" else -1.0
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        """Move the weights."""
        self._module.to(device)
        wide = (1, -1, 1, 1)
        self._shift = torch.tensor(self.description.shift, device=device).view(wide)
        self._scaling = torch.tensor(self.description.scaling, device=device).view(wide)

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "frames channels height width"]) -> EncodedFrames:
        """Encode frames in [0, 1].

        Unobserved pixels (NaN) are read as grey; a frame without any observed pixel gives NaN.
        """
        seen = frames.isnan().logical_not().flatten(1).any(1)
        filled = frames.nan_to_num(nan=0.5)
        latents = [self._encoded(part) for part in torch.split(filled, FRAMES_AT_ONCE)]
        mean = torch.cat([part.mean for part in latents])
        mean[~seen] = torch.nan
        scales = [part.scale for part in latents if part.scale is not None]
        return EncodedFrames(mean, torch.cat(scales) if scales else None)

    @torch.no_grad()
    def decode(
        self, latents: Float[Tensor, "frames channels rows columns"]
    ) -> Float[Tensor, "frames channels height width"]:
        """Decode to frames in [0, 1]."""
        return torch.cat([self._decoded(part) for part in torch.split(latents, FRAMES_AT_ONCE)])

    def stored(
        self, video: UInt8[np.ndarray, "time height width channels"]
    ) -> Float16[np.ndarray, "time rows columns values"]:
        """Encode a clip to the latents that shards hold: means and, where there are any, scales."""
        frames = torch.from_numpy(np.array(video)).permute(0, 3, 1, 2).float() / 255
        mean, scale = self.encode(frames.to(self._shift.device))
        values = mean if scale is None else torch.cat([mean, scale], dim=1)
        stored = values.permute(0, 2, 3, 1).contiguous().cpu().numpy().astype(np.float16)
        if not np.isfinite(stored).all():
            raise UserError(
                f"autoencoder {self.folder} gives latents that are not finite in float16: its "
                "weights are damaged, or its config.json has no scaling_factor; copy it again"
            )
        half: Float16[np.ndarray, "time rows columns values"] = stored
        return half

    def _encoded(self, frames: Tensor) -> EncodedFrames:
        with torch.autocast(frames.device.type, enabled=False):
            pixels = self._pixels_from + (1 - self._pixels_from) * frames.float()
            raw: Any = self._module.encode(pixels)
        scale = None
        if self.description.has_scale:
            raw, scale = raw.latent_dist.mean, raw.latent_dist.std * self._scaling
        elif not isinstance(raw, Tensor):
            raw = next(iter(raw.values()))  # diffusers' output: `latents`, or `latent`
        return EncodedFrames((raw - self._shift) * self._scaling, scale)

    def _decoded(self, latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            decoded: Any = self._module.decode(latents.float() / self._scaling + self._shift)
        decoded = decoded if isinstance(decoded, Tensor) else decoded.sample
        frames: Tensor = (decoded - self._pixels_from) / (1 - self._pixels_from)
        return frames.clamp(0, 1)


def new_kl(channels: int, latent_channels: int, widths: tuple[int, ...], groups: int) -> Any:
    """Build an untrained diffusers AutoencoderKL: a stage for each width, no attention.

    UserError where diffusers is not installed.
    """
    count = len(widths)
    return _diffusers_class("AutoencoderKL", None)(
        in_channels=channels,
        out_channels=channels,
        latent_channels=latent_channels,
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * count,
        up_block_types=("UpDecoderBlock2D",) * count,
        norm_num_groups=groups,
        mid_block_add_attention=False,
    )


def _load(folder: Path, kind: str) -> Any:
    library = None if kind == "TAEF2" else _diffusers_class(kind, folder)
    try:
        return taef2.load(folder) if library is None else _pretrained(library, folder)
    except Exception as error:  # of diffusers, safetensors, torch and the disk
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"autoencoder {folder} does not load ({type(error).__name__}: {reason}); copy it "
            "again: config.json and the safetensors of the same model"
        ) from error


def _pretrained(library: Any, folder: Path) -> Any:
    module, report = library.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(f"its safetensors lack {len(missing)} tensors, as {missing[0]}")
    return module


def _diffusers_class(kind: str, folder: Path | None) -> Any:
    try:
        import diffusers
    except ImportError:
        what = "an autoencoder" if folder is None else f"autoencoder {folder}"
        raise UserError(
            f"{what} needs diffusers, which is not installed here; `pip install "
            "'sdevid[autoencoder]'` brings it"
        ) from None
    diffusers.utils.logging.set_verbosity_error()
    return getattr(diffusers, kind)

"""Train an autoencoder on frames of shards: for data that no published one fits.

The class is diffusers' AutoencoderKL, with as many channels as the shards have. The loss is the
mean absolute error, a weak divergence of the latents from N(0, 1) and, if asked for, that of a
discriminator of patches (Rombach et al. 2022, section 3.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from sdevid import console
from sdevid.autoencoder import folder as folders
from sdevid.autoencoder.frozen import FrozenAutoencoder, new_kl
from sdevid.data.shards import ShardIndex
from sdevid.display import Display
from sdevid.errors import UserError

Frames = Float[Tensor, "frames channels height width"]

_GROUP = 8  # channels of a norm's group in the first stage
_WIDEST = 4  # times the first stage's width
_MEASURED = 256  # frames by which the latents' unit, and the error, are measured
_ADVERSARIAL_FROM = 0.3  # share of training after which the discriminator has a say


@dataclass(frozen=True)
class Options:
    """What is trained, and for how long."""

    latent_channels: int = 8
    factor: int = 8  # pixels a side of one latent, a power of two
    width: int = 32  # channels of the first stage, a multiple of 8; doubled up to 4 times
    frames: int = 40_000  # seen in training
    batch_size: int = 16  # frames
    learning_rate: float = 1e-3
    kl_weight: float = 1e-4  # of the divergence a latent, beside the absolute error a value
    adversarial_weight: float = 0.0
    seed: int = 0

    def check(self) -> None:
        """Raise UserError for a value out of range."""
        for name in ("latent_channels", "frames", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise UserError(f"--{name} is {getattr(self, name)}, but must be above 0")
        if self.factor < 2 or self.factor & (self.factor - 1):
            raise UserError(f"--factor is {self.factor}, but must be a power of two, 2 or more")
        if self.width < _GROUP or self.width % _GROUP:
            raise UserError(f"--width is {self.width}, but must be a multiple of {_GROUP}")
        for name in ("kl_weight", "adversarial_weight", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} is {getattr(self, name)}, but must be 0 or more")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage, from full size down."""
        stages = self.factor.bit_length()
        return tuple(self.width * min(2**k, _WIDEST) for k in range(stages))


def train(index: ShardIndex, held_out: ShardIndex | None, options: Options, folder: Path) -> float:
    """Train on the frames of `index` and write the autoencoder to `folder`.

    Returns the PSNR in dB of frames of `held_out`, or else of `index`, encoded and decoded. An
    interrupt ends the training early. Raises UserError where options and frames do not fit, or
    `folder` cannot be written.
    """
    options.check()
    _check_frames(index, options)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(options.seed)
    channels = index.clips[0].channels
    groups = options.width // _GROUP
    module = new_kl(channels, options.latent_channels, options.widths, groups).to(device)
    critic = _critic(channels).to(device) if options.adversarial_weight else None
    _fit(module, critic, _batches(index, options), options, device)
    try:
        module.save_pretrained(folder, safe_serialization=True)
        set_scaling(folder, FrozenAutoencoder(folder, device).encode(_some(index).to(device)).mean)
        quality = psnr(FrozenAutoencoder(folder, device), _some(held_out or index).to(device))
        record = asdict(options) | {"psnr": quality, "data": index.dataset.get("dataset")}
        (folder / "training.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise UserError(f"--output_dir {folder} cannot be written: {error}") from error
    return quality


def set_scaling(folder: Path, latents: Float[Tensor, "frames channels rows columns"]) -> None:
    """Write mean and deviation of each channel into config.json, so that latents have unit ones.

    `latents` are what the autoencoder in `folder` makes of typical frames as it is described now.
    """
    description, path = folders.describe(folder), folder / "config.json"
    shift, scaling = (torch.tensor(values) for values in (description.shift, description.scaling))
    raw = latents.cpu() / scaling.view(-1, 1, 1) + shift.view(-1, 1, 1)
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    settings["latents_mean"] = raw.mean((0, 2, 3)).tolist()
    settings["latents_std"] = raw.std((0, 2, 3)).clamp(min=1e-6).tolist()
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def psnr(autoencoder: FrozenAutoencoder, frames: Frames) -> float:
    """Measure the PSNR in dB of frames encoded and decoded, averaged over frames."""
    decoded = autoencoder.decode(autoencoder.encode(frames).mean)
    error = (decoded - frames).square().nanmean((1, 2, 3)).clamp(min=1e-10)
    return float((-10 * error.log10()).mean())


def _check_frames(index: ShardIndex, options: Options) -> None:
    for entry in index.clips:
        if entry.height % options.factor or entry.width % options.factor:
            raise UserError(
                f"--factor is {options.factor}, but {index.folder.location} holds frames of "
                f"{entry.width}x{entry.height} (clip {entry.key}), which are no multiple of it"
            )
        if entry.channels != index.clips[0].channels:
            raise UserError(
                f"{index.folder.location} mixes frames of {index.clips[0].channels} and "
                f"{entry.channels} channels (clip {entry.key}); cut them with one --channels"
            )


def _frames(index: ShardIndex, clip: int, indices: np.ndarray[Any, Any] | slice) -> Frames:
    """Read frames of a clip in [0, 1], on the CPU."""
    video = index.read(clip).video[indices]
    values = np.float32(video) / 255 if index.transform is None else index.transform.apply(video)
    return torch.from_numpy(values).permute(0, 3, 1, 2)


def _some(index: ShardIndex) -> Frames:
    """Read one frame from each of a few clips spread evenly over the split."""
    clips = np.unique(np.linspace(0, len(index) - 1, _MEASURED).astype(int)).tolist()
    each = (_frames(index, k, slice(k % index.clips[k].num_frames, None))[:1] for k in clips)
    return torch.cat(list(each))


def _batches(index: ShardIndex, options: Options) -> Iterator[Frames]:
    """Yield batches without end of frames drawn evenly, four of each clip that is read."""
    draw = np.random.default_rng(options.seed)
    waiting: list[Tensor] = []
    while True:
        while len(waiting) < options.batch_size:
            clips = draw.permutation(len(index))[: max(1, options.batch_size // 4)]
            for clip in clips.tolist():
                length = index.clips[clip].num_frames
                waiting += _frames(index, clip, draw.permutation(length)[:4]).unbind(0)
        chosen, waiting = waiting[: options.batch_size], waiting[options.batch_size :]
        yield torch.stack(chosen)


def _fit(
    module: Any,
    critic: nn.Module | None,
    batches: Iterator[Frames],
    options: Options,
    device: torch.device,
) -> None:
    steps = -(-options.frames // options.batch_size)
    optimizer = torch.optim.AdamW(module.parameters(), options.learning_rate, (0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=steps + 1, pct_start=0.05
    )
    rival = None if critic is None else torch.optim.AdamW(critic.parameters(), 1e-4, (0.5, 0.9))
    with Display(options.frames, "frames", title="training") as display, _until_interrupted():
        for step in range(steps):
            frames = next(batches).to(device)
            late = critic is not None and step >= _ADVERSARIAL_FROM * steps
            loss, decoded, error = _loss(module, critic if late else None, frames, options)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if late and critic is not None and rival is not None:
                _teach(critic, rival, frames, decoded.detach())
            note = f"absolute error {float(error):.4f}" if display.due else None
            display.advance(min(len(frames), options.frames - step * options.batch_size), note)


@contextmanager
def _until_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        console.say("interrupted; what was learnt so far is written", "warning")


def _loss(
    module: Any, critic: nn.Module | None, frames: Frames, options: Options
) -> tuple[Tensor, Frames, Tensor]:
    """Compute the loss, the decoded frames, and their mean absolute error over observed pixels."""
    seen = frames.isnan().logical_not()
    pixels = 2 * frames.nan_to_num(nan=0.5) - 1
    latent = module.encode(pixels).latent_dist
    decoded: Tensor = module.decode(latent.sample()).sample
    error = ((decoded - pixels).abs() * seen).sum() / seen.sum().clamp(min=1)
    loss = error + options.kl_weight * latent.kl().mean() / latent.mean[0].numel()
    if critic is not None:
        loss = loss - options.adversarial_weight * critic(decoded).mean()
    return loss, decoded, error.detach() / 2


def _critic(channels: int) -> nn.Sequential:
    """Build a discriminator that scores how real each patch looks."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(64, 1, 3, padding=1))


def _teach(
    critic: nn.Module, optimizer: torch.optim.Optimizer, real: Frames, decoded: Frames
) -> None:
    """Take one step of the discriminator, by the hinge loss."""
    shown = torch.where(real.isnan(), decoded, 2 * real - 1)
    loss = functional.relu(1 - critic(shown)).mean() + functional.relu(1 + critic(decoded)).mean()
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()

"""How videos three times as long as training's clips hold: near real frames, and as wide a state.

    python benchmarks/long_videos.py runs/signs runs/other --data data/signs

From the first frames of clips of the training split, each model is rolled on. At frames 0, 15 and
47 from the last observed one: PSNR to the nearest real frame of the split, sharpness over the real
frames', and the standard deviation of the state (its positions) over that at frame 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdevid import export
from sdevid.data import stream
from sdevid.data.folder import Access
from sdevid.data.shards import open_shards
from sdevid.evaluate.progress import evenly
from sdevid.models.history_model import HistoryModel
from sdevid.models.sampling import Conditioning, SamplerConfig
from sdevid.models.start import Guidance
from sdevid.types import Frames, as_frames

AT = (0, 15, 47)  # frames from the start
SEED = 0


@torch.no_grad()
def rolled(model: HistoryModel, observed: Frames) -> tuple[Tensor, Frames]:
    """Return states and frames at `AT` from the last of the `given` frames on, each once."""
    seen = observed.shape[1]
    ticks = model.config.frame_ticks(seen + AT[-1]).expand(len(observed), -1)
    sampler, serial = SamplerConfig(SEED), torch.arange(len(observed))
    conditioning = Conditioning(observed, ticks[:, :seen])
    context, _ = model.encode_context(ticks[:, seen:], conditioning, False)
    w, z, _ = model.start_prior.sample(context.history, SEED, serial, Guidance())
    later = model.transition(w, context, sampler)(z, ticks[:, seen - 1 :]).states
    states = torch.cat([z[:, None], later], dim=1)[:, list(AT)]
    at = ticks[:, [seen - 1 + k for k in AT]]
    frames = model.decode(states, w, context.history, at)
    return states[:, :, : model.config.sde.latent_size], frames


def nearest(frames: Frames, real: Frames) -> np.ndarray:
    """PSNR in dB of each frame (clips, times) to the nearest of the `real` ones (1, frames)."""
    apart = torch.cdist(frames.flatten(2), real.flatten(2)).amin(2).square()
    return (-10 * (apart / frames[0, 0].numel()).log10()).numpy()


def sharpness(frames: Frames) -> Tensor:
    """Return mean size of the difference between neighbouring pixels, (clips, times)."""
    right, down = frames.diff(dim=-1).abs(), frames.diff(dim=-2).abs()
    return right.flatten(2).mean(2) + down.flatten(2).mean(2)


def main() -> None:
    """Print a line a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--context", type=int, default=5, help="observed frames of each clip")
    options = parser.parse_args()
    for path in options.models:
        model, config = export.load(path, "ema")
        assert isinstance(model, HistoryModel)
        index = open_shards(options.data, options.split, Access.of(config))
        every = stream.fixed(index, config, range(len(index)))
        real = as_frames(every.video)
        chosen = evenly(min(options.clips, len(index)), len(index))
        states, frames = rolled(model.eval(), real[list(chosen), : options.context])
        near = nearest(frames, real.flatten(0, 1)[None])
        wide = states.transpose(0, 1).flatten(1).std(1)
        sharp = sharpness(frames).mean(0) / sharpness(real).mean()
        for k, frame in enumerate(AT):
            spread = near[:, k].std(ddof=1) / len(near) ** 0.5
            print(
                f"{path.name}, frame {frame}: {near[:, k].mean():.2f} ± {spread:.2f} dB, "
                f"sd of z {wide[k]:.3f} ({wide[k] / wide[0]:.2f}), sharpness {sharp[k]:.2f}"
            )


if __name__ == "__main__":
    main()

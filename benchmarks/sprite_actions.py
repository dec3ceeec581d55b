"""Sprites that act in place: does generated video do what was asked, by whom it was asked.

    python benchmarks/sprite_actions.py RUN --data data/actions --output runs/actions.json

DATA holds clips of `make_sprites.py --mode act`, split by character. A small network is trained on
the real training clips to read a clip's action, the way it faces, and skin, hair, top and trousers.
It then reads real held-out clips, what is predicted from their first SEEN frames, and what is drawn
from their captions alone. All three are read over the frames after SEEN. Intervals are 95 %, by
bootstrap over clips. Beside the JSON a picture shows clips at even distances: real, predicted and
prompted.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sprites import LOOKS, films, interval, joined, trained_reader
from torch import Tensor, nn

from sdevid.data.shards import open_shards
from sdevid.sample.video_sde import VideoSDE

SEEN, FRAMES, BATCH, SHOWN = 4, 16, 16, 4
ACTIONS = {"walks": 0, "casts a spell": 1, "slashes": 2, "thrusts a spear": 3}
WAYS = {"to the left": 0, "to the right": 1, "towards us": 2, "away from us": 3}
ASKED = ("action", "way", "skin", "hair", "top", "trousers")
CAPTION = re.compile(rf"{LOOKS} ({'|'.join(ACTIONS)}) ({'|'.join(WAYS)})")


class ClipReader(nn.Module):
    """Network from a clip's frames and their changes to a row of logits for each of ASKED."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((6, 24), (24, 48), (48, 64), (64, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(4, outputs), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 128), nn.SiLU())
        self.heads = nn.ModuleList(nn.Linear(128, size) for size in sizes)

    def forward(self, clips: Tensor) -> list[Tensor]:
        """Read uint8 clips (n, time, height, width, channels)."""
        frames = clips.movedim(-1, 2).float() / 255 - 0.4
        seen = torch.cat([frames[:, 1:], frames.diff(dim=1)], dim=2)
        hidden = torch.unflatten(self.layers(seen.flatten(0, 1)), 0, seen.shape[:2]).mean(1)
        return [head(hidden) for head in self.heads]


class Vocabulary:
    """Numbers of what is asked, by the words of captions."""

    def __init__(self, captions: list[str]) -> None:
        parts = [self.parts(caption) for caption in captions]
        self.words = [sorted({row[k] for row in parts}) for k in range(len(ASKED) - 2)]

    @staticmethod
    def parts(caption: str) -> tuple[str, ...]:
        """Split a caption into skin, hair, top, trousers, action and way."""
        match = CAPTION.fullmatch(caption)
        if match is None:
            raise SystemExit(f"not a caption of a sprite that acts: {caption}")
        skin, orc, *others = match.groups()
        return (skin or orc, *others)

    @property
    def sizes(self) -> list[int]:
        """How many answers each of ASKED has."""
        return [len(ACTIONS), len(WAYS), *map(len, self.words)]

    def numbers(self, captions: list[str]) -> Tensor:
        """Number what each caption asks for, (captions, ASKED)."""
        rows = []
        for *colours, action, way in map(self.parts, captions):
            looks = [words.index(one) for words, one in zip(self.words, colours, strict=True)]
            rows.append([ACTIONS[action], WAYS[way], *looks])
        return torch.tensor(rows)


@torch.no_grad()
def accuracies(reader: ClipReader, clips: Tensor, targets: Tensor) -> dict[str, list[float]]:
    """Compute the share of clips read as asked, for each of ASKED and for the four colours."""
    logits = [reader(part[:, SEEN:]) for part in clips.split(BATCH)]
    chosen = [torch.cat([part[k] for part in logits]).argmax(1) for k in range(len(ASKED))]
    right = (torch.stack(chosen, dim=1) == targets).double().numpy()
    table = {
        name: interval(lambda rows, k=k: right[rows, k].mean(), len(right))
        for k, name in enumerate(ASKED)
    }
    table["colours"] = interval(lambda rows: right[rows, 2:].mean(), len(right))
    return table


def show(sets: list[Tensor], path: Path) -> None:
    """Draw clips at even distances, one set under another, every third frame."""
    chosen = np.linspace(0, len(sets[0]) - 1, SHOWN).round().astype(int)
    rows = [clips[k, ::3] for k in chosen for clips in sets]
    picture = torch.cat([torch.cat(list(row), dim=1) for row in rows])
    Image.fromarray(picture.numpy()).save(path)


def main() -> None:
    """Measure a run, write the table as JSON, and draw some clips."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=128)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--output", type=Path, required=True)
    options, started = parser.parse_args(), time.process_time()
    model = VideoSDE.from_pretrained(options.run, device="cpu")
    training, captions = films(open_shards(options.data, "train"), FRAMES)
    vocabulary = Vocabulary(captions)
    reader = trained_reader(
        lambda: ClipReader(vocabulary.sizes),
        training[:, SEEN:],
        vocabulary.numbers(captions),
        BATCH,
    )
    real, prompts = films(open_shards(options.data, "val"), FRAMES)
    real, prompts = real[: options.clips], prompts[: options.clips]
    futures = joined(
        model.predict(clip[:SEEN].numpy(), num_frames=FRAMES, seed=k) for k, clip in enumerate(real)
    )
    prompted = joined(
        model.sample(1, prompt=text, num_frames=FRAMES, seed=k, guidance_scale=options.guidance)
        for k, text in enumerate(prompts)
    )
    asked, sets = vocabulary.numbers(prompts), [real, futures, prompted]
    results: dict[str, Any] = {"clips": len(real), "guidance": options.guidance}
    for name, clips in zip(("real", "predicted", "prompted"), sets, strict=True):
        results[name] = accuracies(reader, clips, asked)
    results["processor_seconds"] = time.process_time() - started
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    show(sets, options.output.with_suffix(".png"))
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

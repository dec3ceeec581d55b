"""What is said of a clip on its way from the cut to a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdevid.config import parse
from sdevid.data.cut import Plan, cut
from sdevid.data.shards import ShardIndex, open_shards
from sdevid.data.spec import CutClip, CutSpec
from sdevid.data.stream import fixed

SPEC = CutSpec(16, 8.0, 4, 4, "crop", "npy")
SAID = [("", "left"), ("a ball", "right"), ("", ""), ("", "left")]  # caption and label


@dataclass(frozen=True)
class Flat:
    """A video of two clips, flat grey."""

    name: str
    caption: str
    label: str
    group: str = "all"
    split: str | None = None

    def identity(self) -> list[Any]:
        return [self.name, self.caption, self.label]

    def clips(self, spec: CutSpec) -> Iterator[CutClip]:
        shape = (spec.clip_length, spec.frame_size, spec.frame_size, 1)
        for start in range(2):
            yield CutClip(self.name, float(start), np.full(shape, 30 * start, np.uint8))


def worded(folder: Path, said: list[tuple[str, str]]) -> ShardIndex:
    sources = [("train", Flat(f"{i}.avi", *each)) for i, each in enumerate(said)]
    plan = Plan("custom", sources, SPEC, 3, {})
    cut(plan, folder, workers=0, max_bad_fraction=0.0, overwrite=False)
    return open_shards(folder, "train")


def test_a_batch_tells_the_caption_or_else_the_label(tmp_path):
    index = worded(tmp_path, SAID)
    shape = {"frame_size": 16, "channels": 1, "sequence_length": 4, "encoder": {"map_size": 4}}
    batch = fixed(index, parse(shape | {"observation": {"max_context": 2}}), range(8))
    told = ["left", "a ball", "", "left"]
    assert batch.captions == tuple(caption for caption in told for _ in range(2))


@pytest.mark.parametrize(("said", "clips"), [(SAID, 6), ([("", "")] * 2, 0)])
def test_dataset_json_counts_the_clips_of_which_something_is_said(tmp_path, said, clips):
    assert worded(tmp_path, said).dataset["clips_with_words"] == clips

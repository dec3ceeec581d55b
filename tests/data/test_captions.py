"""Of several captions of a clip one is drawn, by seed, clip and epoch, with its embedding."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from sdevid.config import parse
from sdevid.data.embedding import encode, member_name
from sdevid.data.payload import encode as encode_video
from sdevid.data.shard_file import FORMAT, ShardFile, write_json
from sdevid.data.shards import open_shards
from sdevid.data.stream import steps

CAPTIONS = ["a dog", "a brown dog runs", "something moves"]
META = {"source": "a.mp4", "label": "dogs", "num_frames": 4, "fps": 8.0, "caption": CAPTIONS[0]}
META |= {"height": 16, "width": 16, "channels": 1}


def write(folder: Path) -> None:
    shard = ShardFile(folder, "train-000000.tar")
    for k in range(8):
        members = {"npy": encode_video("npy", np.zeros((4, 16, 16, 1), np.uint8), 8.0)}
        for n in range(len(CAPTIONS)):
            members[member_name(n)] = encode(np.full((1, 2), n, np.float16))
        shard.add(f"{k:06d}", META | {"captions": CAPTIONS}, members)
    shard.close()
    splits = {"train": {"clips": 8, "shards": [shard.path.name]}}
    dataset = {"format": FORMAT, "splits": splits, "text_encoder": {"width": 2}}
    write_json(folder / "dataset.json", dataset)


def read(folder: Path, seed: int) -> list[tuple[str, str, float]]:
    """Key, caption, and the number in its embedding, over twelve epochs."""
    index = open_shards(folder, "train")
    index.embedded = True
    config = parse(
        {"frame_size": 16, "channels": 1, "sequence_length": 4, "batch_size": 8, "seed": seed}
        | {"encoder": {"map_size": 4}, "observation": {"max_context": 2}}
    )
    batches = [batch for step in islice(steps(index, config, 0, 1, 0), 12) for batch in step]
    return [
        (key, caption, float(embedding[0, 0]))
        for batch in batches
        for key, caption, embedding in zip(
            batch.keys, batch.captions, batch.embeddings or (), strict=True
        )
    ]


def test_each_caption_comes_with_its_embedding_and_all_come(tmp_path):
    write(tmp_path)
    clips = read(tmp_path, seed=0)
    assert all(CAPTIONS.index(caption) == number for _, caption, number in clips)
    counts = [sum(caption == text for _, caption, _ in clips) for text in CAPTIONS]
    assert min(counts) > 18, "96 draws of three: 32 each, give or take three standard deviations"
    of_one = {caption for key, caption, _ in clips if key == "000000"}
    assert len(of_one) > 1, "another epoch, another draw"
    assert read(tmp_path, seed=0) == clips
    assert read(tmp_path, seed=1) != clips

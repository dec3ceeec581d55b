"""The contact sheet shows clips of all splits at even distances, the same bytes each time."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sdevid.data.cut.sheet import NAME, write_sheet
from sdevid.data.payload import encode
from sdevid.data.shard_file import FORMAT, ShardFile, write_json


@pytest.mark.parametrize(("channels", "side"), [(1, 16), (3, 32)])
def test_sheet_shows_24_clips_from_first_to_last(tmp_path, channels, side):
    splits = {"train": 40, "val": 8}
    level = 0
    for split, count in splits.items():
        shard = ShardFile(tmp_path, f"{split}-000000.tar")
        for k in range(count):
            video = np.full((6, side, side, channels), 5 * level, np.uint8)
            meta = {"source": f"{k}.mp4", "label": "\u2603", "num_frames": 6, "fps": 8.0}
            meta |= {"height": side, "width": side, "channels": channels, "caption": "a dog " * 30}
            shard.add(f"{k:06d}-{split}", meta, {"npy": encode("npy", video, 8.0)})
            level += 1
        shard.close()
    dataset = {
        "format": FORMAT,
        "splits": {s: {"clips": n, "shards": [f"{s}-000000.tar"]} for s, n in splits.items()},
    }
    write_json(tmp_path / "dataset.json", dataset)
    path = write_sheet(tmp_path, dataset)
    assert path == tmp_path / NAME
    sheet = np.asarray(Image.open(path))
    rows, columns = 8, 3
    height, width = sheet.shape[0] // rows, sheet.shape[1] // columns
    corners = [int(sheet[r * height + 2, c * width + 2, 0]) for r in range(8) for c in range(3)]
    wanted = [5 * round(47 * k / 23) for k in range(24)]
    assert corners == wanted
    text = sheet[side + 2 : height, :width]
    assert text.min() < 100, "a caption is below"
    before = path.read_bytes()
    assert write_sheet(tmp_path, dataset).read_bytes() == before

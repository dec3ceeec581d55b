"""What was not observed stays so: a mask beside integers and video, NaN in the batch."""

from __future__ import annotations

from pathlib import Path

import factories
import numpy as np
import pytest
import tifffile
import torch

from sdevid import objectives
from sdevid.cli.shards import main as cut
from sdevid.config import parse
from sdevid.data import mask
from sdevid.data.cut.verify import check_shard
from sdevid.data.shards import open_shards
from sdevid.data.stream import steps

GONE = 65_535


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """16-bit stacks whose last frame, and one corner, hold GONE."""
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        film = rng.integers(100, 4_000, (6, 16, 16), dtype=np.uint16)
        film[5], film[2, :2, :2] = GONE, GONE
        tifffile.imwrite(tmp_path / "in" / f"{number}.tif", film)
    given = ["--dataset", "custom", "--input_dir", str(tmp_path / "in"), "--clip_length", "6"]
    given += ["--output_dir", str(tmp_path / "out"), "--missing", str(GONE), "--fps", "8"]
    assert cut([*given, "--splits", "train=1", "--workers", "0"]) == 0
    return tmp_path / "out"


def test_missing_values_are_nan_in_a_batch(shards):
    index = open_shards(shards, "train")
    assert index.transform is not None
    assert index.transform.high < 4_000  # the range is of what was observed
    config = parse(factories.settings(batch_size=3))
    (batch,) = next(steps(index, config, 0, 1, 0))
    lost = torch.zeros(6, 16, 16, 1, dtype=torch.bool)
    lost[5], lost[2, :2, :2] = True, True
    assert all(torch.equal(video.isnan(), lost) for video in batch.video)
    assert index.read(0).meta["not_observed"] == pytest.approx(lost.float().mean().item(), abs=1e-6)
    assert check_shard(str(shards), "train-000000.tar", decoding=True).faults == ()


def test_missing_values_reach_no_loss(shards):
    config = parse(factories.settings(batch_size=3))
    (batch,) = next(steps(open_shards(shards, "train"), config, 0, 1, 0))
    objective = objectives.build(config)
    loss = objective(batch.video, batch.ticks, batch.serial, 1.0)["loss"]
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())
    assert loss.isfinite()


def test_a_whole_clip_has_no_mask(tmp_path):
    (tmp_path / "in").mkdir()
    tifffile.imwrite(
        tmp_path / "in" / "a.tif", np.arange(6 * 256, dtype=np.uint16).reshape(6, 16, 16)
    )
    given = ["--dataset", "custom", "--input_dir", str(tmp_path / "in"), "--clip_length", "6"]
    given += ["--output_dir", str(tmp_path / "out"), "--missing", str(GONE), "--fps", "8"]
    assert cut([*given, "--splits", "train=1", "--workers", "0"]) == 0
    assert "mask" not in open_shards(tmp_path / "out", "train").clips[0].members


def test_masks_come_back_and_others_are_refused():
    whole = np.random.default_rng(0).random((4, 3, 2, 1)) < 0.5
    np.testing.assert_array_equal(mask.decode(mask.encode(whole), (4, 3, 2, 1)), whole)
    frames = mask.of_frames([1, 3], 4)
    assert frames is not None
    assert mask.decode(mask.encode(frames), (4, 3, 2, 1)).ravel().tolist() == [False, True] * 2
    assert mask.of_frames([], 4) is None
    for wrong in (whole[:3], whole[:, :2], whole.astype(np.uint8)):
        with pytest.raises(ValueError, match="not bool"):
            mask.decode(mask.encode(wrong), (4, 3, 2, 1))
    with pytest.raises(ValueError, match="does not decode"):
        mask.decode(b"junk", (4, 3, 2, 1))

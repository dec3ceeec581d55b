"""A run on tars without an index: it carries on from its cursors, and stops at much damage."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds

from sdevid import checkpoint
from sdevid.checkpoint import Progress
from sdevid.errors import UserError
from sdevid.train.loop import train
from sdevid.train.training_data import open_data


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    folder = tmp_path / "tars"
    folder.mkdir()
    buffer = io.BytesIO()
    np.save(buffer, np.full((8, 16, 16, 1), 90, np.uint8))
    for n in range(2):
        with wds.TarWriter(str(folder / f"{n}.tar"), encoder=False) as tar:
            for k in range(6):
                tar.write({"__key__": f"{n}{k}", "npy": buffer.getvalue(), "txt": b"grey"})
    return folder


def run(make_config: Any, world: Any, tars: Path, **settings: Any) -> list[dict[str, Any]]:
    """The cursors of the last checkpoint."""
    config = make_config(data=str(tars), data_reader="webdataset", **settings)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    assert train(config, open_data(config, world.size), world, Progress()) == "done"
    step = max(checkpoint.steps(config.run_dir))
    return checkpoint.read_manifest(checkpoint.folder_of(config.run_dir, step)).cursors


def test_run_carries_on_at_the_cursors_of_its_checkpoint(make_config, world, tars):
    (first,) = run(make_config, world, tars, max_clips=8)
    assert (first["epoch"], len(first["pending"])) == (1, 4), "4 of 12 clips are still to come"
    (second,) = run(make_config, world, tars, max_clips=12)
    assert (second["epoch"], second["pending"]) == (1, [])


def test_run_on_many_damaged_samples_ends_with_a_sentence(make_config, world, tars):
    with wds.TarWriter(str(tars / "1.tar"), encoder=False) as tar:
        for k in range(20):
            tar.write({"__key__": f"bad{k}", "npy": b"no array"})
    with pytest.raises(UserError, match="are damaged, more than data_max_damaged allows"):
        run(make_config, world, tars, max_clips=40)
    names = (tars.parent / "run" / "quarantine.jsonl").read_text()
    assert "bad1" in names
    assert "its npy does not read" in names

"""A cut gives the same bytes however it runs, carries on, and names what is bad."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdevid.data.cut.plan import Plan
from sdevid.data.cut.run import cut
from sdevid.data.cut.sources import LeftOut, Listing
from sdevid.data.cut.verify import check_shard, folder_faults
from sdevid.data.open import open_folder
from sdevid.data.shards import open_shards
from sdevid.data.spec import BadVideoError, ClipSource, CutClip, CutSpec, LeftOutError
from sdevid.errors import UserError

SPEC = CutSpec(8, 8.0, 2, 2, "crop", "npy")


@dataclass
class Film:
    """A source of flat clips, told apart by their grey level."""

    number: int
    count: int = 5
    reason: str | None = None  # why it is bad
    whole: bool = False  # whether it is then left out, not damaged
    breaks: bool = False  # whether the machine breaks down at it
    label: str = "flat"
    caption: str = ""
    split: str | None = None
    log: list[int] = field(default_factory=list, compare=False)

    @property
    def name(self) -> str:
        return f"films/{self.number}.mp4"

    group = name

    def identity(self) -> list[Any]:
        return [self.name, self.count]

    def clips(self, spec: CutSpec) -> Iterator[CutClip]:
        self.log.append(self.number)
        for k in range(self.count):
            if k == 2 and self.breaks:
                raise KeyboardInterrupt
            if k == 2 and self.reason:
                raise (LeftOutError if self.whole else BadVideoError)(self.reason)
            shape = (spec.clip_length, spec.frame_size, spec.frame_size, 3)
            yield CutClip(self.name, k / 4, np.full(shape, 10 * self.number + k, np.uint8))


def plan(*films: Film, shard_size: int = 4) -> Plan:
    """Two thirds of the films for training."""
    border = -(-2 * len(films) // 3)
    pairs: list[tuple[str, ClipSource]] = [
        ("train" if k < border else "val", film) for k, film in enumerate(films)
    ]
    return Plan("films", pairs, SPEC, shard_size, {"seed": 0})


def run(what: Plan, folder: Path, bad: float = 0.0, *, overwrite: bool = False) -> dict[str, Any]:
    return cut(what, folder, workers=0, max_bad_fraction=bad, overwrite=overwrite)


def content(folder: Path) -> dict[str, bytes]:
    """Every file, hidden ones too, but not in folders."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_clips_lie_in_order_in_full_shards(tmp_path):
    output = run(plan(Film(0), Film(1), Film(2)), tmp_path)
    text = {
        split: [part[name] for name in ("clips", "videos", "shards")]
        for split, part in output["splits"].items()
    }
    assert text == {
        "train": [10, 2, [f"train-00000{n}.tar" for n in range(3)]],
        "val": [5, 1, ["val-000000.tar", "val-000001.tar"]],
    }
    kind = {"num_frames": 2, "fps": 8.0, "height": 8, "width": 8, "channels": 3}
    assert [part["kinds"] for part in output["splits"].values()] == [[kind], [kind]]
    index = open_shards(tmp_path, "train")
    clips = [index.read(i) for i in range(len(index))]
    assert [int(clip.video[0, 0, 0, 0]) for clip in clips] == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert clips[6].key == "000001-films-1-0001"
    assert clips[6].meta == {
        "source": "films/1.mp4",
        "start": 0.25,
        "fps": 8.0,
        "num_frames": 2,
        "height": 8,
        "width": 8,
        "channels": 3,
        "label": "flat",
        "caption": "",
    }
    assert not list(folder_faults(open_folder(tmp_path), output))


@pytest.mark.parametrize("shard_size", [1, 3, 5, 7, 100])
@pytest.mark.parametrize("broken", range(6))
def test_cut_carried_on_gives_the_same_bytes(tmp_path, shard_size, broken):
    films = [Film(number) for number in range(6)]
    run(plan(*films, shard_size=shard_size), tmp_path / "whole")
    films[broken] = replace(films[broken], breaks=True)
    with pytest.raises(KeyboardInterrupt):
        run(plan(*films, shard_size=shard_size), tmp_path / "halves")
    assert not (tmp_path / "halves/dataset.json").exists()
    films[broken] = replace(films[broken], breaks=False)
    run(plan(*films, shard_size=shard_size), tmp_path / "halves")
    assert content(tmp_path / "halves") == content(tmp_path / "whole")


def test_finished_part_of_a_cut_is_not_done_again(tmp_path):
    log: list[int] = []
    films = [Film(number, log=log, breaks=number == 4) for number in range(6)]
    with pytest.raises(KeyboardInterrupt):
        run(plan(*films), tmp_path)
    films[4].breaks = False
    run(plan(*films), tmp_path)
    run(plan(*films), tmp_path)
    assert log == [0, 1, 2, 3, 4, 4, 5]


def test_account_reads_each_shard_once_however_many_videos_there_are(tmp_path, monkeypatch):
    read: list[str] = []
    cutting = importlib.import_module("sdevid.data.cut.run")
    whole = cutting.read_index
    monkeypatch.setattr(
        cutting, "read_index", lambda folder, shard: (read.append(shard), whole(folder, shard))[1]
    )
    run(plan(*(Film(number, count=1) for number in range(12))), tmp_path)
    assert read == [f"train-{k:06d}.tar" for k in range(2)] + ["val-000000.tar"]


def test_sheet_is_drawn_where_a_kill_came_just_before_it(tmp_path):
    run(plan(Film(0), Film(1)), tmp_path)
    before = content(tmp_path)
    (tmp_path / "sheet.png").unlink()
    (tmp_path / ".cut/parts").mkdir(parents=True)  # goes after the sheet
    run(plan(Film(0), Film(1)), tmp_path)
    assert content(tmp_path) == before
    assert not (tmp_path / ".cut").exists()


def test_bad_videos_are_named_and_the_rest_goes_on(tmp_path):
    films = [Film(number, reason="is torn" if number == 1 else None) for number in range(6)]
    films[5] = replace(films[5], reason="is short", whole=True)
    listing = Listing(left_out=[LeftOut("x.txt", "is no video by its name")])
    output = run(replace(plan(*films), listing=listing), tmp_path, bad=0.2)
    assert (output["quarantined"], output["left_out"]) == (1, 2)
    lines = (tmp_path / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"source": "films/1.mp4", "reason": "is torn", "kind": "bad"},
        {"source": "films/5.mp4", "reason": "is short", "kind": "left out"},
        {"source": "x.txt", "reason": "is no video by its name", "kind": "left out"},
    ]
    assert {clip.source for clip in open_shards(tmp_path, "train").clips} == {
        f"films/{number}.mp4" for number in (0, 2, 3)
    }


def test_cut_with_too_many_bad_videos_stops_unless_allowed(tmp_path):
    films = [Film(number, reason="is torn" if number in (1, 3) else None) for number in range(6)]
    with pytest.raises(UserError, match=r"2 of 6 videos are damaged .* films/3.mp4: is torn"):
        run(plan(*films), tmp_path, bad=0.2)
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 2
    assert run(plan(*films), tmp_path, bad=0.5)["quarantined"] == 2
    run(plan(*films), tmp_path / "whole", bad=0.5)
    assert content(tmp_path) == content(tmp_path / "whole")


def test_split_without_a_clip_is_told(tmp_path):
    with pytest.raises(UserError, match="no video gave a clip for split val"):
        run(plan(Film(0), Film(1), Film(2, reason="is torn")), tmp_path, bad=1.0)


def test_another_cut_is_not_overwritten_unless_asked(tmp_path):
    first, second = plan(Film(0), Film(1), Film(2)), plan(Film(0), Film(1), Film(2), shard_size=2)
    run(first, tmp_path)
    before = content(tmp_path)
    with pytest.raises(UserError, match=r"shard_size was 4, is 2; .* --overwrite"):
        run(second, tmp_path)
    with pytest.raises(UserError, match="the input files have changed"):
        run(plan(Film(0), Film(1), Film(2, count=6)), tmp_path)
    assert content(tmp_path) == before
    run(second, tmp_path, overwrite=True)
    run(second, tmp_path / "apart")
    assert content(tmp_path) == content(tmp_path / "apart")


def test_strange_tars_are_left_alone(tmp_path):
    (tmp_path / "train-000000.tar").write_text("mine")
    with pytest.raises(UserError, match="holds tars that no cut here has begun"):
        run(plan(Film(0), Film(1), Film(2)), tmp_path)
    assert (tmp_path / "train-000000.tar").read_text() == "mine"


def test_shards_are_verified(tmp_path):
    output = run(plan(Film(0), Film(1), Film(2)), tmp_path)
    assert check_shard(str(tmp_path), "train-000000.tar", decoding=True).faults == ()
    path = tmp_path / "train-000000.tar"
    sound = path.read_bytes()
    index = open_shards(tmp_path, "train").clips[1]
    spoilt = bytearray(sound)
    spoilt[index.members["npy"].offset + 200] ^= 1
    path.write_bytes(spoilt)
    (fault,) = check_shard(str(tmp_path), path.name, decoding=True).faults
    assert fault.endswith(f"member {index.key}.npy has another sha256 than the index says")
    path.write_bytes(sound[:-3000])
    assert check_shard(str(tmp_path), path.name, decoding=False).faults
    path.unlink()
    assert check_shard(str(tmp_path), path.name, decoding=False).faults
    (tmp_path / "old-000000.tar").touch()
    output["splits"]["val"]["clips"] = 6
    assert sorted(folder_faults(open_folder(tmp_path), output)) == [
        "old-000000.tar is not named in dataset.json",
        "split val has 5 clips, but dataset.json says 6",
    ]


CRASHING = """
import os, signal, sys
from dataclasses import dataclass
import numpy as np
from sdevid.data.spec import CutClip

@dataclass
class Crashing:
    number: int
    deadly: int
    split: None = None
    label: str = ""
    caption: str = ""

    @property
    def name(self):
        return f"{self.number}.mp4"

    group = name

    def identity(self):
        return [self.number]

    def clips(self, spec):
        if self.number == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        yield CutClip(self.name, 0.0, np.full((2, 8, 8, 3), self.number, np.uint8))
"""


def test_cut_with_workers_is_the_same_and_names_a_deadly_video(tmp_path, monkeypatch):
    (tmp_path / "crashing_films.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    crashing = importlib.import_module("crashing_films").Crashing

    def cut_with(workers: int, deadly: int) -> dict[str, bytes]:
        pairs: list[tuple[str, ClipSource]] = [("train", crashing(n, deadly)) for n in range(5)]
        folder = tmp_path / f"{workers}-{deadly}"
        what = Plan("films", pairs, SPEC, 2, {})
        cut(what, folder, workers=workers, max_bad_fraction=0.3, overwrite=False)
        return content(folder)

    assert cut_with(2, -1) == cut_with(0, -1)
    (line,) = cut_with(2, 1)["quarantine.jsonl"].splitlines()
    assert json.loads(line)["source"] == "1.mp4"
    assert "died" in json.loads(line)["reason"]

"""The walks of ARCHITECTURE.md lead through files that exist, few of them each."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
WALKS = dict(re.findall(r"^\*\*(.+?)\*\*\n\n(.*?)(?=\n\n|\Z)", TEXT, re.DOTALL | re.MULTILINE))
MOST_FILES = 12


def _files(steps: str) -> set[str]:
    return set(re.findall(r"`([\w/]+\.py)`", steps))


def test_walks_are_the_five():
    assert list(WALKS) == [
        "Clip to loss",
        "Setting to act",
        "Seed to kernel",
        "Checkpoint out and back",
        "Prompt to video",
    ]


@pytest.mark.parametrize("name", WALKS)
def test_walk_has_at_most_twelve_files_and_all_exist(name):
    files = _files(WALKS[name])
    assert 5 <= len(files) <= MOST_FILES
    missing = [f for f in files if not any((ROOT / d / f).is_file() for d in ("sdevid", "kernels"))]
    assert not missing

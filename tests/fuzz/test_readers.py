"""Hypothesis beside atheris: cuts, flips and splices of sound files, with a fixed seed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fuzz.readers import READERS, prepare
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

STRANGE: list[Any] = [None, True, -1, 0, 2**63, 2**64, 1e308, "", "\0", "x" * 300, [], [[]], {}]
CALM = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@st.composite
def spliced(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with a few parts replaced by others of any length, or cut off."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(changed)))
        changed[at : at + draw(st.integers(0, 12))] = draw(st.binary(max_size=12))
    return bytes(changed[: draw(st.integers(0, len(changed)))] if draw(st.booleans()) else changed)


@st.composite
def another_value(draw: st.DrawFn, content: bytes) -> bytes:
    """A JSON file with a strange value at some place of it."""
    value = json.loads(content)
    place, key = {"": value}, ""
    while isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 4)):
        place = place[key]
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    place[key] = draw(st.sampled_from(STRANGE))
    return json.dumps(value).encode()


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_changed_file_is_read_or_refused(name, tmp_path):
    reader = READERS[name]
    prepare(tmp_path)
    changes = st.sampled_from(reader.seeds).flatmap(
        lambda content: (
            spliced(content) | another_value(content)
            if content.startswith(b"{") and not name.startswith("metrics.jsonl")
            else spliced(content)
        )
    )

    @seed(1)
    @settings(max_examples=200, suppress_health_check=CALM, database=None)
    @given(changes)
    def try_one(content):
        reader(tmp_path, content)

    for content in reader.seeds:
        reader.read(tmp_path, content)
    try_one()

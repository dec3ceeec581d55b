"""The window of a run that torch.profiler records."""

from __future__ import annotations

import json

import torch

from sdevid.config import parse
from sdevid.train.record.profile import WARM_UP, recording


def test_window_on_a_cpu_has_time_and_allocations_but_no_snapshot(tmp_path, world, capsys):
    config = parse({"run_dir": str(tmp_path), "profile_steps": 2})
    for step in recording(range(20), config, world):
        torch.ones(1_000 * (step + 1)).square()
    events = json.loads((tmp_path / "profile" / "trace.json").read_text())["traceEvents"]
    squares = [event for event in events if event["name"] == "aten::square"]
    assert len(squares) == 2  # of the two steps after the warm-up
    allocated = {event["args"]["Bytes"] for event in events if event["name"] == "[memory]"}
    assert {4_000 * (step + 1) for step in (WARM_UP, WARM_UP + 1)} <= allocated
    assert not (tmp_path / "profile" / "memory.pickle").exists()
    output = capsys.readouterr().out
    assert "2 steps recorded" in output
    assert "memory.pickle is of a GPU alone" in output
    assert "CPU Mem" in output
    assert "aten::square" in output


def test_run_that_ends_within_the_window_is_recorded_up_to_there(tmp_path, world):
    config = parse({"run_dir": str(tmp_path), "profile_steps": 50})
    assert list(recording(range(WARM_UP + 1), config, world)) == list(range(WARM_UP + 1))
    assert (tmp_path / "profile" / "trace.json").stat().st_size > 0


def test_profile_that_cannot_be_written_costs_a_line(tmp_path, world, capsys):
    (tmp_path / "profile").write_text("a file")
    config = parse({"run_dir": str(tmp_path), "profile_steps": 1})
    assert len(list(recording(range(20), config, world))) == 20
    assert "the profile cannot be written" in capsys.readouterr().out

"""One command for a GPU: no step hides another, none outlives its time, and all of it rehearses."""

from __future__ import annotations

import csv
import importlib.util
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gpu_check(monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "tools/gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)
    spec.loader.exec_module(module)
    return module


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_failing_step_hides_no_other(gpu_check, tmp_path):
    todo = [
        gpu_check.Step("first", [_python("raise SystemExit(3)")], 60, dict),
        gpu_check.Step("second", [_python("print('well')")], 60, lambda: {"speed": "7"}),
        gpu_check.Step("third", [], 0, dict, "the tool is not there"),
        gpu_check.Step("fourth", [_python("")], 60, lambda: {}["none"]),
    ]
    outcomes = gpu_check.check(todo, 60, tmp_path, tmp_path / "some" / "results.csv")
    assert [outcome.word for outcome in outcomes] == ["failed", "passed", "left out", "failed"]
    assert [outcome.is_bad for outcome in outcomes] == [True, False, False, True]
    rows = _rows(tmp_path / "some" / "results.csv")
    assert [row["step"] for row in rows] == ["first", "second", "second", "third", "fourth"]
    assert "exit code 3" in rows[0]["note"]
    assert (rows[2]["figure"], rows[2]["value"]) == ("speed", "7")
    assert all(row["date"] and row["machine"] and row["torch"] for row in rows)
    assert "the tool is not there" in gpu_check.table(outcomes)


def test_step_ends_with_its_time_and_its_children(gpu_check, monkeypatch, tmp_path):
    mark = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(4); pathlib.Path({str(mark)!r}).touch()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    late = gpu_check.Step("late", [_python(parent)], 60, dict)
    began = time.monotonic()
    monkeypatch.setattr(gpu_check, "LEAST", 0.5)
    outcome = gpu_check.run(late, 1.5, tmp_path / "log")
    assert outcome.word == "timed out"
    assert time.monotonic() - began < 4
    time.sleep(4)
    assert not mark.exists()


def test_no_time_left_is_said(gpu_check, tmp_path):
    step = gpu_check.Step("late", [_python("")], 60, dict)
    outcome = gpu_check.run(step, 1.0, tmp_path / "log")
    assert outcome.is_bad
    assert "no time was left" in outcome.note


def test_without_a_gpu_it_says_so_and_stops(gpu_check, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "_device", lambda: "cpu")
    assert gpu_check.main([]) == 2
    assert "finds no GPU" in capsys.readouterr().err


def test_steps_come_by_what_they_tell_and_fit_into_six_minutes(gpu_check, tmp_path):
    first = [step.name for step in gpu_check.steps(False, tmp_path, tmp_path, first=True)]
    assert first == ["step of default", "step of default size=S", "step of demo", *first[3:]]
    assert first[3:] == ["benchmark: em_step"]
    names = [step.name for step in gpu_check.steps(False, tmp_path, tmp_path)]
    assert names[:5] == [*first, "gpu tests"]
    assert {"memcheck", "racecheck", "short training", "step of default with a graph"} < set(names)
    assert gpu_check.FIRST <= 90
    assert gpu_check.ALLOWED <= 350


def test_figures_of_a_step_are_those_of_its_config(gpu_check, tmp_path):
    table = tmp_path / "gpu_step.csv"
    table.write_text("name,figure,value\na,clips/s,1\nb,clips/s,2\nb,waits,1\n", encoding="utf-8")
    assert gpu_check._step_figures(table, "b") == {"clips/s": "2", "waits": "1"}


def test_only_files_with_gpu_tests_are_read(gpu_check, tmp_path):
    """On a node without PyAV, say, others would not even be collected."""
    steps = {step.name: step for step in gpu_check.steps(False, tmp_path, tmp_path)}
    (command,) = steps["gpu tests"].commands
    files = {Path(part).name for part in command if part.endswith(".py")}
    assert {"test_em_step.py", "test_em_trajectory_fused.py", "test_cuda_graph.py"} <= files
    assert "test_cut.py" not in files


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="make gpu-check runs the steps themselves")
def test_every_step_rehearses_on_a_cpu(gpu_check, capsys):
    code = gpu_check.main(["--cpu"])
    message = capsys.readouterr().out
    assert code == 0, message
    (path,) = (ROOT / "build/gpu-check").glob("gpu-check-*-rehearsal.csv")
    rows = _rows(path)
    assert {row["outcome"] for row in rows if row["outcome"]} == {"passed"}
    assert all("rehearsal" in row["machine"] for row in rows)
    figures = {row["figure"] for row in rows}
    assert "training_step tiny ours: milliseconds" in figures
    assert {"last loss, nats", "clips/s"} <= figures

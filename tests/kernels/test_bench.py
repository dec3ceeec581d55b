"""The benchmark times nothing whose tests are red, and says what was not measured."""

import csv
import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "kernels"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("bench")


def test_red_operators_are_not_timed(bench, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "red", lambda _: ["em_step", "em_trajectory"])
    monkeypatch.setattr(sys, "argv", ["bench.py", "--output", str(tmp_path)])
    assert bench.main() == 1
    assert not list(tmp_path.iterdir())
    assert "em_step is not timed: its tests are red" in capsys.readouterr().out


def test_a_failing_test_makes_its_operator_red(bench, monkeypatch, tmp_path):
    folder = tmp_path / "tests/kernels"
    folder.mkdir(parents=True)
    (folder / "test_good.py").write_text("def test_it():\n    assert True\n")
    (folder / "test_bad.py").write_text("def test_it():\n    assert False\n")
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    assert bench.red(("good", "bad")) == ["bad"]


def test_what_was_not_measured_says_so(bench, tmp_path):
    rows = [{"case": "a", "GB/s": "12"}, {"case": "b", "GB/s": bench.UNMEASURED}]
    bench.write("some", rows, tmp_path)
    measured, blank = csv.DictReader((tmp_path / "some.csv").read_text().splitlines())
    assert measured["machine"]
    assert measured["torch"]
    assert measured["date"]
    assert blank["machine"] == bench.UNMEASURED
    assert not blank["date"]


@pytest.mark.usefixtures("bench")
def test_ways_of_a_training_step_agree():
    """Ours and the plain loop reach the same states and KL."""
    import torch
    from bench_cases import Size, Step

    step = Step(Size(3, 1, 4, 8, 4, frames=2))
    made = []
    step.finish = lambda states, kl: made.append((states.detach(), kl.detach()))
    step.ours()
    step.eager()
    torch.testing.assert_close(made[0], made[1], rtol=1e-4, atol=1e-5)

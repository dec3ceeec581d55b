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


def test_failing_test_makes_its_operator_red(bench, monkeypatch, tmp_path):
    folder = tmp_path / "tests/kernels"
    folder.mkdir(parents=True)
    (folder / "test_good.py").write_text("def test_it():\n    assert True\n")
    (folder / "test_bad.py").write_text("def test_it():\n    assert False\n")
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    assert bench.red(("good", "bad")) == ["bad"]


def _write(bench, folder: Path, **speeds: str) -> dict[str, dict[str, str]]:
    bench.write("some", [{"size": size, "GB/s": speed} for size, speed in speeds.items()], folder)
    rows = csv.DictReader((folder / "some.csv").read_text().splitlines())
    return {row["size"]: row for row in rows}


def test_unmeasured_row_says_so(bench, tmp_path):
    rows = _write(bench, tmp_path, a="12", b=bench.UNMEASURED)
    assert rows["a"]["machine"]
    assert rows["a"]["torch"]
    assert rows["a"]["date"]
    assert rows["b"]["machine"] == bench.UNMEASURED
    assert not rows["b"]["date"]


def test_rows_measured_elsewhere_are_kept(bench, tmp_path):
    _write(bench, tmp_path, a="12", b=bench.UNMEASURED)
    rows = _write(bench, tmp_path, a=bench.UNMEASURED, b="7", c="8")
    assert [rows[size]["GB/s"] for size in "abc"] == ["12", "7", "8"]


@pytest.mark.slow
def test_tests_run_again_once_the_code_changes(bench, monkeypatch, tmp_path):
    folder, code = tmp_path / "tests/kernels", tmp_path / "kernels/sdevid_kernels"
    folder.mkdir(parents=True)
    code.mkdir(parents=True)
    count = tmp_path / "count"
    test = f"def test_it():\n    open({str(count)!r}, 'a').write('x')\n"
    (folder / "test_good.py").write_text(test)
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    for source in ("a = 1", "a = 1", "a = 2"):
        (code / "some.py").write_text(source)
        assert bench.red(("good",)) == []
    assert count.read_text() == "xx"


def test_compiler_that_is_late_is_left_out(bench, monkeypatch):
    import time

    def slowly(_function, **_settings):
        return lambda _increments: time.sleep(5)

    monkeypatch.setattr(bench.torch, "compile", slowly)
    step = bench.Step(bench.SIZES["tiny"])
    assert bench.compiled_step(step, 0.2) is None


@pytest.mark.usefixtures("bench")
def test_ways_of_a_training_step_agree():
    """Ours and the plain loop reach the same states and KL."""
    import torch
    from bench_cases import Size, Step

    step = Step(Size(3, 1, 4, 8, 4, frames=2))
    results = []
    step.finish = lambda states, kl: results.append((states.detach(), kl.detach()))
    step.ours()
    step.eager()
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)

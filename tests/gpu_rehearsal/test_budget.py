"""Training and sampling keep their budgets of launches, waits and copies on a pretended GPU."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import table
import torch
from budgets import CASES, SIZES
from pretended_cuda import CUDA, MixedDevicesError, OnDevice, pretended_cuda
from rehearsal import sample, train

JUDGE = "copy to the host at train/world.py"  # the loss guard, before weights change
PIXELS = "copy to the host at sample/sampler.py"


def cases(budgets):
    """A parameter for each budget; all but the quick one are slow."""
    return [
        pytest.param(each, id=each.name, marks=() if each.is_quick else pytest.mark.slow)
        for each in budgets
    ]


@pytest.fixture(scope="module")
def apart():
    """Call a function in a process of its own: DeepSpeed keeps the first group that it sees."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield lambda count, *arguments: pool.submit(count, *arguments).result()


@pytest.mark.parametrize("budget", cases(CASES + SIZES))
def test_a_training_step_keeps_its_budget(budget, apart):
    asked = apart(train, budget.config, *budget.overrides)
    assert [where.split(":")[0] for where in asked.waits] == [JUDGE]
    assert sum(asked.waits.values()) == 1
    assert not asked.copies
    assert asked.launches <= budget.launches


@pytest.mark.parametrize("budget", cases(each for each in CASES if each.sampling))
def test_a_window_of_frames_waits_once(budget, apart):
    asked = apart(sample, budget.config, *budget.overrides)
    assert [where.split(":")[0] for where in asked.waits] == [PIXELS]
    assert sum(asked.waits.values()) == 1
    assert not asked.copies
    assert asked.launches <= budget.sampling


def test_zero_2_waits_for_its_judge_alone(apart):
    asked = apart(train, "demo", "zero_stage=2")
    assert sum(asked.waits.values()) == 1
    assert not asked.copies


def test_table_replaces_its_part_of_a_page_alone(tmp_path, monkeypatch):
    page = tmp_path / "gpu.md"
    page.write_text(f"above\n{table.BEGIN}\nold\n{table.END}\nbelow\n")
    monkeypatch.setattr("sys.argv", ["table.py", "--rows", "none", "--output", str(page)])
    table.main()
    lines = page.read_text().splitlines()
    assert lines[0] == "above"
    assert lines[-1] == "below"
    assert "old" not in lines
    assert lines[2].startswith("| Config | Launches | Waits | Copies |")


def test_what_waits_copies_or_mixes_is_counted():
    with pretended_cuda() as device:
        made = torch.ones(3, device="cuda")
        assert isinstance(made, OnDevice)
        (made * 2).sum().item()
        torch.zeros(3).to(CUDA)
        torch.zeros(3).pin_memory().to(CUDA)
        made.cpu()
        with pytest.raises(MixedDevicesError):
            made + torch.zeros(3)
        assert sum(device.waits.values()) == 2
        assert sum(device.copies.values()) == 1
        assert sum(device.sent.values()) == 1
        assert device.launches["aten::mul"] == device.launches["aten::sum"] == 1

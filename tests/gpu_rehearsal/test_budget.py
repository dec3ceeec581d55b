"""Training and sampling keep their budgets of launches, waits and copies on a pretended GPU."""

from __future__ import annotations

import importlib
import pkgutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import sdevid_kernels
import table
import torch
from budgets import CASES, SAMPLED_SIZES, SIZES
from pretended_cuda import CUDA, MixedDevicesError, OnDevice, pretended_cuda
from rehearsal import ROOT, sample, train
from torch._library.custom_ops import CustomOpDef

from sdevid import sizes

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
    assert asked.draws == budget.draws


@pytest.mark.parametrize("budget", cases(b for b in (*CASES, *SAMPLED_SIZES) if b.sampling))
def test_a_window_of_frames_waits_once(budget, apart):
    asked = apart(sample, budget.config, *budget.overrides)
    assert [where.split(":")[0] for where in asked.waits] == [PIXELS]
    assert sum(asked.waits.values()) == 1
    assert not asked.copies
    assert asked.launches <= budget.sampling


def test_every_shipped_config_and_size_has_a_budget():
    shipped = {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    shipped |= {f"docs/{path.stem}" for path in (ROOT / "docs").glob("*.yaml")}
    as_shipped = [budget for budget in CASES if not budget.overrides]
    assert {budget.config for budget in as_shipped} == shipped
    assert all(budget.launches and budget.sampling for budget in as_shipped)
    for sized in (SIZES, SAMPLED_SIZES):
        assert {budget.overrides[0] for budget in sized} == {f"size={size}" for size in sizes.SIZES}


def operators() -> set[str]:
    """Names of all operators that kernels/ defines."""
    found = set()
    for module in pkgutil.walk_packages(sdevid_kernels.__path__, "sdevid_kernels."):
        values = vars(importlib.import_module(module.name)).values()
        found |= {x._qualname for x in values if isinstance(x, CustomOpDef)}
    return found


def test_every_kernel_is_launched_by_a_shipped_config(apart):
    names = ("demo", "signs", "brownian")
    launched = set().union(*(apart(train, name).kernels for name in names))
    assert launched == operators()


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


@pytest.mark.slow
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

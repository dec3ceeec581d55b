"""The examples of the how-to pages run, and do what the pages say."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sdevid.config import SDEConfig
from sdevid.sde.equation import SDE
from sdevid.sde.noise import Brownian
from sdevid.sde.solvers import SOLVERS
from sdevid.sde.stepwise import integrate
from sdevid.types import TICKS_PER_UNIT

HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def example(page: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": page}
    (source,) = BLOCK.findall((HOWTO / f"{page}.md").read_text(encoding="utf-8"))
    exec(compile(source, page, "exec"), names)
    return names


def test_seven_pages_are_there():
    wanted = {"cluster", "resume", "own-data", "own-backbone", "own-solver", "own-metric", "kernel"}
    assert wanted <= {path.stem for path in HOWTO.glob("*.md")}


@pytest.mark.parametrize("page", sorted(HOWTO.glob("*.md")), ids=lambda path: path.stem)
def test_files_that_a_page_names_exist(page):
    named = re.findall(
        r"`((?:sdevid|tests|kernels|configs|launch|slurm|tools)/[^`\s]*)`", page.read_text()
    )
    missing = [name for name in named if not (HOWTO.parents[1] / name).exists()]
    assert not [name for name in missing if "*" not in name], missing


def test_backbone_starts_at_zero_and_learns():
    config = SDEConfig(latent_size=3, hidden=8)
    network = example("own-backbone")["SkipNetwork"](config, outputs=2)
    z, condition = torch.randn(5, 3), torch.randn(5, 8)
    assert torch.equal(network(z, condition), torch.zeros(5, 2))
    torch.nn.init.normal_(network.last.weight)
    network(z, condition).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_metric_reads_the_level_of_flat_videos():
    metric = example("own-metric")["METRIC"]
    grey = np.full((4, 3, 8, 8, 1), 60, np.uint8)
    context = SimpleNamespace(free=grey, clips=range(4), real=lambda *_: 2 * grey)
    results = metric.run(context)
    assert results["brightness"]["generated"]["mean"] == 60
    assert [row.entry["mean"] for row in metric.rows(results)] == [60, 120]


def test_solver_has_the_order_that_it_declares(monkeypatch):
    """A double well against the same path by 256 steps of srk."""
    solver = example("own-solver")["SCHEME"]
    monkeypatch.setitem(SOLVERS, solver.name, solver)
    exact = at_one("srk", 256)
    coarse, fine = ((at_one(solver.name, n) - exact).square().mean().sqrt() for n in (8, 32))
    order = float(torch.log2(coarse / fine)) / 2
    assert order > solver.strong_order["additive"] - 0.1


def at_one(scheme: str, steps: int) -> torch.Tensor:
    sde = SDE(lambda _t, z: z - z**3, lambda _t, z: torch.full_like(z, 0.7), noise="additive")
    ticks = (torch.arange(steps + 1) * (TICKS_PER_UNIT // steps)).expand(4, -1)
    noise = Brownian(11, torch.arange(4), (2_000,), TICKS_PER_UNIT // 256)
    start = torch.full((4, 2_000), 0.5, dtype=torch.float64)
    return integrate(sde, start, ticks, noise, scheme, saved=[steps]).states[:, 0]

"""Kernels compile for a GPU, which the interpreter does not prove."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_SHARED = 232_448  # bytes a block on compute capability 9.0
DRAWN = {"DRAWN": True, "dw": None}
EVERY = {"CONTROL": True, "WIDTH": True, "SLOPE": True, "G": 256, **DRAWN}
FEW = {"CONTROL": False, "control": None, "DRAWN": False, "G": 256}
FEW_STEP = {**FEW, "WIDTH": False, "width": None, "SLOPE": False, "slope": None}
CHAIN = {"CONTROL": True, "WIDTH": True, "BOUND": True, "R": 16, "TILE": 32, "P": "tf32", **DRAWN}
CASES = [
    ("philox", "_fill", {"BLOCK": 1024}),
    *(
        ("em_step", name, flags)
        for name in ("_forward", "_backward")
        for flags in (EVERY, FEW_STEP)
    ),
    *(
        ("heun_step", name, {"CONTROL": True, "G": 256, **DRAWN})
        for name in ("_forward", "_backward")
    ),
    *(("reversible_heun_step", name, FEW) for name in ("_forward", "_backward")),
    *(("em_trajectory", name, {**CHAIN, "D": 16}) for name in ("_forward", "_backward")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("module", "name", "flags"), CASES)
def test_kernel_compiles_and_fits(module, name, flags):
    command = [sys.executable, str(Path(__file__).with_name("compile_for_gpu.py"))]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT / "kernels")
    done = subprocess.run(
        [*command, module, name, json.dumps(flags)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) <= MOST_SHARED

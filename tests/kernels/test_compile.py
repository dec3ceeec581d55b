"""Kernels compile for a GPU, which the interpreter does not prove."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sdevid_kernels.em_trajectory import SHARED
from sdevid_kernels.em_trajectory.triton.launch import OPTIONS, TILES

ROOT = Path(__file__).parents[2]
MOST_SHARED = 232_448  # bytes a block on compute capability 9.0
DRAWN = {"DRAWN": True, "dw_ptr": None}
EVERY = {"CONTROL": True, "WIDTH": True, "G": 256, **DRAWN}
FEW = {"CONTROL": False, "control_ptr": None, "DRAWN": False, "G": 256}
FEW_STEP = {**FEW, "WIDTH": False, "width_ptr": None}
CHAIN = {"BOUND": True, "ROWS": 16, "PRECISION": "tf32x3", **TILES, **OPTIONS}
PRIOR = {"HEADS": 0, "DIFFUSION": 0, "UNIT": 0, "LAYERS": 1, "D": 16, "DRAWN": False}
PRIOR |= {"ONE_SHIFT": False, "RECOMPUTE": False}
ALL = {"HEADS": 2, "DIFFUSION": 2, "UNIT": 2, "LAYERS": 2, "D": 256, **DRAWN}
ALL |= {"ONE_SHIFT": True, "RECOMPUTE": True}
ABSENT = {  # of the prior
    "forward": {},
    "backward": {"grad_slope_ptr": None, "grad_control_shift_ptr": None},
}
CASES = [
    ("philox.kernel", "fill", {"BLOCK": 1024, "NORMAL": True}),
    *(
        ("em_step.kernel", name, flags)
        for name in ("forward", "backward")
        for flags in (EVERY, FEW_STEP)
    ),
    *(("em_trajectory.triton.passes", name, CHAIN | PRIOR | ABSENT[name]) for name in ABSENT),
    *(("em_trajectory.triton.passes", name, CHAIN | ALL) for name in ABSENT),
]
# Registers, bytes of spills and bytes of shared memory of each case on sm_90a: may only improve.
MOST = [None, (62, 0, 4096), (46, 0, 16), (64, 0, 4096), (32, 0, 0), (189, 0, 2048)]
MOST += [(244, 0, 16384), (255, 808, 32768), None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name", "flags", "most"),
    [(*case, most) for case, most in zip(CASES, MOST, strict=True)],
)
def test_kernel_compiles_and_fits(module, name, flags, most):
    command = [sys.executable, str(Path(__file__).with_name("compile_for_gpu.py"))]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT / "kernels")
    done = subprocess.run(
        [*command, module, name, json.dumps(flags)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shared, registers, spilled = (int(word) for word in done.stdout.split())
    if most is not None:
        assert registers <= most[0]
        assert spilled <= most[1]
        assert shared <= most[2]
    assert shared <= (SHARED if module == "em_trajectory.triton.passes" else MOST_SHARED)

"""What the machine gives at most, copies and matrix products, and how near the operators come."""

from __future__ import annotations

from collections.abc import Callable

import torch
from bench_cases import ON_GPU, SIZES, Step
from sdevid_kernels.em_step import kernel as em_step
from torch import Tensor

UNMEASURED = "not measured yet"
Row = dict[str, object]
PASSES = (("forward", 16), ("backward", 18))  # em_step's bytes an element
REPEATS = 10  # launches a replay, so that starting it does not count


def device_seconds(run: Callable[[], object], seconds: float) -> float:
    """Time one `run` on the device: the least of several replays of a CUDA graph."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(REPEATS):
            run()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    best, spent = float("inf"), 0.0
    while spent < seconds:
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        taken = start.elapsed_time(end) / 1e3
        best, spent = min(best, taken / REPEATS), spent + taken
    return best


def time_em_step(seconds: float) -> list[Row]:
    """Measure em_step's bandwidth beside a copy's, for states of 64 MB and more; return rows."""
    rows: list[Row] = []
    for megabytes in (64, 256):
        base: Row = {"device": "cuda", "state MB": megabytes}
        speeds = _bandwidth(megabytes * 2**20 // 4, seconds / 6) if ON_GPU else None
        for direction, size in PASSES:
            if speeds is None:
                figures = dict.fromkeys(("GB/s", "copy GB/s", "share of copy"), UNMEASURED)
            else:
                speed, copy = speeds[direction], speeds["copy"]
                figures = {"GB/s": f"{speed:.0f}", "copy GB/s": f"{copy:.0f}"}
                figures["share of copy"] = f"{speed / copy:.3f}"
            rows.append({**base, "pass": direction, "bytes an element": size, **figures})
    return rows


def _bandwidth(elements: int, seconds: float) -> dict[str, float]:
    """Measure GB/s of a copy and of em_step's passes on a state of `elements` elements."""
    shape = (16, elements // 16)
    z, spare = (torch.randn(shape, device="cuda") for _ in range(2))
    drift, g, control, width = (
        torch.rand(shape, device="cuda").add_(0.1).bfloat16() for _ in range(4)
    )
    serial, dt = torch.arange(16, device="cuda"), torch.full((16,), 0.01, device="cuda")
    key, ones = (dt, None, serial, serial, 1), torch.ones(16, device="cuda")
    back = (z, ones, drift[:0], g, control, width, *key)
    runs: dict[str, tuple[int, Callable[[], object]]] = {
        "copy": (8, lambda: spare.copy_(z)),
        "forward": (16, lambda: em_step.em_step(z, drift, g, control, width, *key)),
        "backward": (18, lambda: em_step.em_step_backward(*back)),
    }
    return {
        name: size * elements / device_seconds(run, seconds) / 1e9
        for name, (size, run) in runs.items()
    }


def time_arithmetic(seconds: float) -> list[Row]:
    """Measure em_trajectory's arithmetic beside that of a large matrix product; return rows."""
    rows: list[Row] = []
    names = ("small", "map", "medium")
    columns = ("TFLOP/s", "fp32 matmul TFLOP/s", "tf32 matmul TFLOP/s", "share of matmul")
    ceilings = _matmuls(seconds / 8) if ON_GPU else {}
    for name in names:
        speeds = _arithmetic(name, seconds / 8) if ON_GPU else {}
        for direction in ("forward", "backward"):
            figures: Row = dict.fromkeys(columns, UNMEASURED)
            if ON_GPU:
                speed = speeds[direction]
                shown = (speed, ceilings["fp32"], ceilings["tf32"])
                figures = dict(zip(columns, (f"{x:.2f}" for x in shown), strict=False))
                figures["share of matmul"] = f"{speed / ceilings['tf32']:.3f}"
            rows.append({"device": "cuda", "size": name, "pass": direction, **figures})
    return rows


def _matmuls(seconds: float, side: int = 4096) -> dict[str, float]:
    """Measure TFLOP/s of a product of float32 matrices, in float32's and in TF32's arithmetic."""
    a, b, out = (torch.randn(side, side, device="cuda") for _ in range(3))
    seconds_of, was = {}, torch.backends.cuda.matmul.allow_tf32
    for name in ("fp32", "tf32"):
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        taken = device_seconds(lambda: torch.mm(a, b, out=out), seconds)
        seconds_of[name] = 2 * side**3 / taken / 1e12
    torch.backends.cuda.matmul.allow_tf32 = was
    return seconds_of


def _arithmetic(name: str, seconds: float) -> dict[str, float]:
    """Measure TFLOP/s of a size's solve; what the backward pass recomputes is not counted."""
    step = Step(SIZES[name])
    size = step.size
    forward = 2 * 2 * 2 * size.state * size.hidden * step.rows * size.steps
    products: list[Tensor] = []

    def solve() -> None:
        products[:] = step.solve()

    solve()
    with torch.no_grad():
        forward_seconds = device_seconds(step.solve, seconds)

    def both() -> None:
        solve()
        torch.autograd.grad([products[0].sum() + products[1].sum()], step.leaves)

    whole = device_seconds(both, seconds)
    return {
        "forward": forward / forward_seconds / 1e12,
        "backward": 2 * forward / (whole - forward_seconds) / 1e12,
    }

"""Matrix products in place on a CPU, by whichever of torch's libraries is quicker there.

MKL keeps its widest instructions for Intel's own processors; oneDNN uses what the processor has. On
an AMD core of 512 bits it is twice as quick, once a product outweighs its dearer call. The choice
hangs on the machine and the shapes alone, so that a run repeats itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

_WORTH = 2**20  # multiplications from which oneDNN's call pays


Call = Callable[[], object]


class MKL:
    """Products by torch.addmm, which writes where it is told; each is put together, then called."""

    @staticmethod
    def put(out: Tensor, a: Tensor, b: Tensor) -> Call:
        """out = a @ b"""
        return partial(torch.mm, a, b, out=out)

    @staticmethod
    def add(out: Tensor, a: Tensor, b: Tensor) -> Call:
        """out += a @ b"""
        return partial(out.addmm_, a, b)

    @staticmethod
    def put_on(out: Tensor, bias: Tensor, a: Tensor, b: Tensor) -> Call:
        """out = bias + a @ b"""
        return partial(torch.addmm, bias, a, b, out=out)


class OneDNN(MKL):
    """The same by oneDNN, whose result is a tensor of its own."""

    @staticmethod
    def put(out: Tensor, a: Tensor, b: Tensor) -> Call:
        made = by_onednn(a, b)
        return lambda: out.copy_(made())

    @staticmethod
    def add(out: Tensor, a: Tensor, b: Tensor) -> Call:
        made = by_onednn(a, b)
        return lambda: out.add_(made())

    @staticmethod
    def put_on(out: Tensor, bias: Tensor, a: Tensor, b: Tensor) -> Call:
        made = by_onednn(a, b)
        return lambda: torch.add(made(), bias, out=out)


def by_onednn(a: Tensor, b: Tensor) -> Callable[[], Tensor]:
    """a @ b. Of a `b` with gaps between its rows oneDNN would take one number at a time."""
    product, turned = torch.ops.mkldnn._linear_pointwise.default, b.t()
    if b.is_contiguous() or turned.is_contiguous():
        return partial(product, a, turned, None, "none", [], "")
    return lambda: product(a, b.contiguous().t(), None, "none", [], "")


def quickest(rows: int, inner: int, columns: int, like: Tensor) -> type[MKL]:
    """The products for (rows, inner) @ (inner, columns)."""
    wide = rows * inner * columns > _WORTH and like.dtype == torch.float32
    return OneDNN if wide and _onednn_is_quicker() else MKL


@cache
def _onednn_is_quicker() -> bool:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    vendors = [line for line in lines if line.startswith("vendor_id")]
    return (
        bool(vendors)
        and "GenuineIntel" not in vendors[0]
        and torch._C._has_mkldnn
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )

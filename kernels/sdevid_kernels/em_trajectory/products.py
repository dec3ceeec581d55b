"""Matrix products in place on a CPU, by whichever library is quicker there.

MKL keeps its widest instructions for Intel's own processors; oneDNN uses what the processor has. On
an AMD core of 512 bits it is twice as quick, once a product outweighs its dearer call. Below that a
caller can give another library (`take`). The choice hangs on the machine, its libraries and the
shapes alone, so that a run repeats itself.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

_WORTH = 2**20  # multiplications above which oneDNN's dearer call pays


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


class Small(NamedTuple):
    """A library that is quickest up to `most` multiplications, to be called inside `scope`."""

    products: type[MKL]
    most: int
    scope: Callable[[], AbstractContextManager[object]]


_small: list[Small] = []


def take(small: Small) -> None:
    """Have `small` used from now on, where it is quickest."""
    _small[:] = [small]


def scope() -> AbstractContextManager[object]:
    """What products are to be called in."""
    return _small[0].scope() if _small else nullcontext()


def quickest(rows: int, inner: int, columns: int, like: Tensor) -> type[MKL]:
    """The products for (rows, inner) @ (inner, columns)."""
    many = rows * inner * columns
    if like.dtype != torch.float32 or not mkl_holds_back():
        return MKL
    if _small and many <= _small[0].most:
        return _small[0].products
    return OneDNN if many > _WORTH and has_onednn() else MKL


@cache
def mkl_holds_back() -> bool:
    """Whether this is an x86 processor of another maker than Intel."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    vendors = [line for line in lines if line.startswith("vendor_id")]
    return bool(vendors) and "GenuineIntel" not in vendors[0]


def has_onednn() -> bool:
    """Whether this torch holds it."""
    return torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")

"""Small matrix products by the OpenBLAS that numpy stands on, where it has 512 bits and MKL not."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sdevid_kernels.em_trajectory import products
from torch import Tensor

_SMALL = 2**23  # multiplications up to which it is quickest
_OF_512_BITS = {"SkylakeX", "Cooperlake", "SapphireRapids"}  # OpenBLAS's names of its kernels


class OpenBLAS(products.MKL):
    """The products by numpy, quickest where the right factor's rows are contiguous."""

    @staticmethod
    def put(out: Tensor, a: Tensor, b: Tensor) -> products.Call:
        return partial(np.matmul, *_arrays(a, b, out))

    @staticmethod
    def add(out: Tensor, a: Tensor, b: Tensor) -> products.Call:
        room = torch.empty_like(out)
        return _in_turn(OpenBLAS.put(room, a, b), partial(np.add, *_arrays(out, room, out)))

    @staticmethod
    def put_on(out: Tensor, bias: Tensor, a: Tensor, b: Tensor) -> products.Call:
        return _in_turn(OpenBLAS.put(out, a, b), partial(np.add, *_arrays(out, bias, out)))


def _arrays(*tensors: Tensor) -> list[npt.NDArray[np.float32]]:
    return [tensor.detach().numpy() for tensor in tensors]


def _in_turn(first: products.Call, second: products.Call) -> products.Call:
    def run() -> None:
        first()
        second()

    return run


@cache
def offer() -> None:
    """Have the kernels take it for what they multiply on a CPU, where it is quicker."""
    if products.mkl_holds_back() and is_wide():
        products.take(products.Small(OpenBLAS, _SMALL, on_one_core))


@cache
def _library() -> Any:  # threadpoolctl has no types
    """As threadpoolctl finds it; nothing where numpy stands on another library."""
    from threadpoolctl import ThreadpoolController

    folder = str(Path(np.__file__).resolve().parent)  # it lies in it, or beside it in numpy.libs
    found = ThreadpoolController().select(internal_api="openblas")
    paths = [str(Path(each["filepath"]).resolve()) for each in found.info()]
    return found.select(filepath=[path for path in paths if path.startswith(folder)])


def is_wide() -> bool:
    """Whether its products use instructions of 512 bits; OPENBLAS_CORETYPE can tell it not to."""
    kernels = {each["architecture"] for each in _library().info()}
    return bool(kernels) and kernels <= _OF_512_BITS


def on_one_core() -> AbstractContextManager[object]:
    """Products inside run on the caller's core alone: a pool would cost more than they take."""
    return _library().limit(limits=1)  # type: ignore[no-any-return]

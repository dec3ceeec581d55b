"""Initial weights that depend on a part's name and the run's seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


@contextmanager
def initial_weights(seed: int, name: str) -> Iterator[None]:
    """Draw the initial weights of the part `name`, built inside, from a stream of its own.

    The stream is keyed by a hash of `seed` and `name`, so that building another part, or building
    parts in another order, does not change these weights. The generators' states are restored.
    """
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = [torch.cuda.current_device()] if on_gpu else []
    key = int.from_bytes(digest, "little") >> 1
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(key)
        if devices:
            torch.cuda.manual_seed(key)
        yield


def small_normal(*shape: int) -> nn.Parameter:
    """Draw a parameter from N(0, 0.02^2)."""
    return nn.Parameter(nn.init.normal_(torch.empty(shape), std=0.02))


@contextmanager
def no_weights() -> Iterator[None]:
    """Build modules on the meta device, where `torch.nn.init` draws nothing.

    There PyTorch draws, multiplies and fills in Python, for which it imports its compiler and
    sympy: longer than it takes to build and load a model.
    """
    with torch.device("meta"), _NoDraws():
        yield


class _NoDraws(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)

"""Initial weights that depend on a part's name and the run's seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


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

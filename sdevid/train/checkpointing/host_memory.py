"""Copies in host memory of what a checkpoint holds, to be written while training goes on."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn


class HostMemory:
    """Copies nested containers of tensors, storage by storage, as torch.save would write them.

    Tensors that share a storage share its copy. The next capture reuses the memory, so that only
    one copy of a rank's state is ever held; it is pinned where tensors are on a GPU.
    """

    def __init__(self) -> None:
        self._pool: list[torch.UntypedStorage] = []
        self._held: dict[tuple[int, int], torch.UntypedStorage] = {}
        self._sources: list[Tensor] = []  # alive, or another tensor might take a copied address

    def begin(self) -> None:
        """Forget the previous capture, whose memory is overwritten from now on."""
        self._held.clear()
        self._sources.clear()

    def finish(self) -> None:
        """Wait for copies from the device; the capture is whole after it."""
        if any(tensor.is_cuda for tensor in self._sources):
            torch.cuda.synchronize()
        self._sources.clear()

    def copy(self, value: Any) -> Any:
        """Copy `value` with every tensor in it, and everything else."""
        if isinstance(value, Tensor):
            return self._tensor(value)
        if type(value) in (dict, OrderedDict):
            copied = type(value)((self.copy(k), self.copy(v)) for k, v in value.items())
            if isinstance(value, OrderedDict):
                copied.__dict__.update(copy.deepcopy(value.__dict__))  # state_dict's _metadata
            return copied
        if type(value) in (list, tuple):
            return type(value)(self.copy(item) for item in value)
        return copy.deepcopy(value)

    def _tensor(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key = (storage.data_ptr(), storage.nbytes())
        if key not in self._held:
            self._held[key] = self._storage(storage)
        self._sources.append(tensor)
        copied = torch.empty(0, dtype=tensor.dtype).set_(
            self._held[key], tensor.storage_offset(), tensor.size(), tensor.stride()
        )
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(copied, requires_grad=tensor.requires_grad)
        return copied.requires_grad_(tensor.requires_grad)

    def _storage(self, storage: torch.UntypedStorage) -> torch.UntypedStorage:
        place, size = len(self._held), storage.nbytes()
        if place >= len(self._pool) or self._pool[place].nbytes() != size:
            pinned = storage.device.type == "cuda"
            host = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
            self._pool[place:] = [host.untyped_storage()]
        self._pool[place].copy_(storage, non_blocking=storage.device.type == "cuda")
        return self._pool[place]

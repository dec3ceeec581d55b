"""Tensors that say they are on CUDA, on a machine without: what a GPU would be asked to do.

They hold shapes alone (torch's meta device), so that a model of any size runs, and count what costs
time on a GPU: kernels launched, waits for the device, copies between host and device. A tensor of
the host among theirs is refused, as CUDA refuses it.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import sdevid_kernels
import torch
from torch import nn
from torch.fx.experimental import _config as fx_config
from torch.nn.utils import clip_grad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from triton.runtime.jit import JITFunction

import sdevid

PACKAGES = tuple(Path(package.__file__ or "").parent for package in (sdevid, sdevid_kernels))
CUDA, META = torch.device("cuda", 0), torch.device("meta")

_FREE = {
    "view",
    "expand",
    "transpose",
    "permute",
    "slice",
    "select",
    "unsqueeze",
    "squeeze",
    "as_strided",
    "detach",
    "alias",
    "t",
    "unbind",
    "split",
    "split_with_sizes",
    "chunk",
    "_unsafe_view",
    "_reshape_alias",
    "diagonal",
    "unfold",
    "movedim",
    "empty",
    "narrow",
    "new_empty",
    "empty_like",
    "empty_strided",
    "new_empty_strided",
    "lift_fresh",
    "view_as_real",
    "real",
    "set",
    "resize",
    "is_same_size",
    "sym_size",
    "unflatten",
    "lift",
    "record_stream",
}
_READS = {"_local_scalar_dense": "item", "equal": "equal", "is_nonzero": "is_nonzero"}
_SHAPED_BY_VALUES = {"nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive"}


class MixedDevicesError(RuntimeError):
    """Tensors of the host and of the device in one operation."""


class OnDevice(torch.Tensor):
    """A tensor that Python and the operations see on CUDA; autograd sees it on the host."""

    shapes: torch.Tensor  # on torch's meta device
    holds = False  # what reading it gives where it is no 0: True of `all`, as where all is well
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, shapes: torch.Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            shapes.shape,
            strides=shapes.stride(),
            storage_offset=shapes.storage_offset(),
            dtype=shapes.dtype,
            device="cpu",
            requires_grad=False,
        )
        made.shapes = shapes
        return made

    @property
    def device(self) -> torch.device:
        return CUDA

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, other: OnDevice) -> None:
        torch.Tensor.data.__set__(self, other)
        self.shapes = other.shapes

    def __repr__(self) -> str:
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} outside of the pretended device")

    def to(self, *args, **kwargs):
        target = _target(args, kwargs)
        if target is not None and target.type == "cpu":
            found = _current().to_host(self)
            dtypes = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.dtype)]
            return found.to(dtypes[0]) if dtypes else found
        args = tuple(x for x in args if not _is_place(x))
        kwargs = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking")}
        return torch.Tensor.to(self, *args, **kwargs) if args or kwargs else self

    def cpu(self) -> torch.Tensor:
        return _current().to_host(self)

    def tolist(self) -> Any:
        return _current().to_host(self).tolist()

    def numpy(self) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def pin_memory(self) -> Any:
        raise RuntimeError("cannot pin a tensor of the device")


def _is_place(x: Any) -> bool:
    if isinstance(x, torch.device):
        return True
    return isinstance(x, str) and x.split(":")[0] in ("cpu", "cuda")


def _target(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device | None:
    for x in (*args, kwargs.get("device")):
        if _is_place(x):
            return torch.device(x)
        if isinstance(x, torch.Tensor):
            return x.device
    return None


class PretendedCuda(TorchDispatchMode):
    """While entered, `torch.device("cuda")` is there; what it is asked is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()  # by what waits and where
        self.copies: Counter[str] = Counter()  # from pageable memory of the host: they block
        self.sent: Counter[str] = Counter()  # from memory that `pinned` declares, which do not

    def clear(self) -> None:
        for counts in (self.launches, self.waits, self.copies, self.sent):
            counts.clear()

    def to_host(self, tensor: OnDevice) -> torch.Tensor:
        """A copy of what the device holds, after a wait: ones."""
        self.waits[f"copy to the host at {_where()}"] += 1
        with torch.utils._python_dispatch._disable_current_modes():
            return torch.ones(tensor.shape, dtype=tensor.dtype)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1].rstrip("_")
        flat = tree_flatten((args, kwargs))[0]
        ours = [x for x in flat if isinstance(x, OnDevice)]
        theirs = [x for x in flat if isinstance(x, torch.Tensor) and not isinstance(x, OnDevice)]
        place = next((torch.device(x) for x in flat if isinstance(x, torch.device)), None)
        in_backward = torch._C._current_graph_task_id() != -1  # autograd's own zeros
        if not ours and (place is None or (place.type != "cuda" and not in_backward)):
            return func(*args, **kwargs)
        if name in _READS:
            self.waits[f"{_READS[name]} at {_where()}"] += 1
            return ours[0].holds or (0.0 if ours[0].dtype.is_floating_point else 0)
        if not self._takes(name, ours, theirs, place):
            raise MixedDevicesError(
                f"{func} takes {[tuple(x.shape) for x in theirs]} of the host at {_where()}"
            )
        if name in _SHAPED_BY_VALUES or (name == "index" and _by_mask(args[1])):
            self.waits[f"{name} at {_where()}"] += 1
        if name not in _FREE and not (name == "_to_copy" and not ours):
            self.launches[func._schema.name] += 1
        return self._shaped(func, args, kwargs, ours)

    def _takes(self, name: str, ours: Any, theirs: Any, place: torch.device | None) -> bool:
        """Whether the operation may take tensors of the host; counts those that are copied."""
        if name in ("copy", "_to_copy") and theirs and (ours or place is not None):
            counts = self.sent if getattr(theirs[0], "is_sent", False) else self.copies
            counts[_where()] += 1
            return True
        if name in ("index", "index_put") and ours:  # CUDA takes indices of the host: a copy each
            if theirs:
                self.copies[_where()] += len(theirs)
            return True
        return all(x.dim() == 0 and not name.startswith("index") for x in theirs)

    def _shaped(self, func: Any, args: Any, kwargs: Any, ours: list[OnDevice]) -> Any:
        """What `func` gives on the meta device, as tensors of this one."""

        def inner(x: Any) -> Any:
            if isinstance(x, OnDevice):
                return x.shapes
            if isinstance(x, torch.Tensor):
                return x.to(META)
            return META if isinstance(x, torch.device) else x

        if func._schema.name == "aten::masked_fill":  # torch's own shape function mixes devices
            return OnDevice(torch.empty_like(ours[0].shapes))
        kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory"}
        given, named = tree_map(inner, (args, kwargs))
        with torch.utils._python_dispatch._disable_current_modes():
            out = func(*given, **named)
        same = {id(x.shapes): x for x in ours}

        def outer(x: Any) -> Any:
            if not isinstance(x, torch.Tensor):
                return x
            return same[id(x)] if id(x) in same else OnDevice(x.to(META))

        results = tree_map(outer, out)
        if func._schema.name == "aten::all":
            results.holds = True
        return results


def on_device(module: nn.Module) -> nn.Module:
    """`module`, which was built on torch's meta device, with its tensors on the pretended one."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved = nn.Parameter(OnDevice(parameter.detach()), parameter.requires_grad)
                part._parameters[name] = moved
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = OnDevice(buffer)
    return module


def _by_mask(indices: Any) -> bool:
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)


def _where() -> str:
    """The line of the product that asks."""
    for frame in reversed(traceback.extract_stack()):
        for package in PACKAGES:
            if Path(frame.filename).is_relative_to(package):
                return f"{Path(frame.filename).relative_to(package)}:{frame.lineno}"
    return "?"


_ENTERED: list[PretendedCuda] = []


def _current() -> PretendedCuda:
    return _ENTERED[-1]


@contextmanager
def pretended_cuda() -> Iterator[PretendedCuda]:
    """A device to build models on and run them: within, `device="cuda"` works."""
    device = PretendedCuda()
    _ENTERED.append(device)
    patches = [
        mock.patch.object(clip_grad, "_group_tensors_by_device_and_dtype", _by_device_and_dtype),
        mock.patch.object(clip_grad, "_has_foreach_support", return_value=True),
        mock.patch.object(fx_config, "meta_nonzero_assume_all_nonzero", True),
        mock.patch.object(JITFunction, "run", _run),
        mock.patch.object(torch.cuda, "Event", _Event),
        mock.patch.object(torch.cuda, "is_current_stream_capturing", return_value=False),
        mock.patch.object(torch.cuda, "_lazy_init", return_value=None),
        mock.patch.object(torch.cuda, "get_device_properties", return_value=_H100),
        mock.patch.object(torch, "autocast", _Autocast),
        mock.patch.object(torch, "tensor", _tensor),
        mock.patch.object(torch.Tensor, "pin_memory", pinned),
    ]
    for patch in patches:
        patch.start()
    try:
        with device:
            yield device
    finally:
        for patch in patches:
            patch.stop()
        _ENTERED.pop()


_made_on_host = torch.tensor


def _tensor(data: Any, *, device: Any = None, **kwargs: Any) -> torch.Tensor:
    """`torch.tensor`, which makes its values on the host and then sends them."""
    made = _made_on_host(data, device="cpu", **kwargs)
    if device is None:
        return made
    return made.to(CUDA if torch.device(device).type == "cuda" else device)


def pinned(tensor: torch.Tensor, *_device: Any) -> torch.Tensor:
    """Declare that `tensor` lies in pinned memory, which a machine without a GPU does not have."""
    tensor.is_sent = True
    return tensor


def _by_device_and_dtype(lists: Any) -> dict[Any, Any]:
    """Group tensors as torch does in C++, where these ones lie on the host."""
    groups: dict[Any, Any] = {}
    for index, tensors in enumerate(zip(*lists, strict=True)):
        key = (tensors[0].device, tensors[0].dtype)
        columns, indices = groups.setdefault(key, ([[] for _ in lists], []))
        for column, tensor in zip(columns, tensors, strict=True):
            column.append(tensor)
        indices.append(index)
    return groups


def _run(kernel: Any, *_args: Any, **_kwargs: Any) -> None:
    """Count a launch of one of Triton's kernels that is no operator of PyTorch."""
    _current().launches[f"triton::{kernel.fn.__name__}"] += 1


class _Autocast(torch.autocast):
    """The device has no autocast of its own here; that of the host has the same parts."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


class _Event:
    """An event of the device, on which no time passes."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def record(self, *_args: Any) -> None:
        pass

    def synchronize(self) -> None:
        _current().waits[f"event at {_where()}"] += 1

    def elapsed_time(self, _end: Any) -> float:
        return 0.0


class _H100:
    shared_memory_per_block_optin, multi_processor_count = 232_448, 132
    name, major, minor, total_memory = "pretended", 9, 0, 80 << 30

"""A graph of a micro-step without a GPU: its operations, run again in place of the Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from sdevid.train.graph.micro_step import Inputs, Result, Step

_READS = ("aten::_local_scalar_dense", "aten::equal")  # checks that a CPU alone makes


class Recording(TorchDispatchMode):
    """Keeps each operation with its arguments and results, as a CUDA graph keeps kernels.

    What Python makes of values, such as a shape, a branch or a number drawn by numpy, stays as it
    was recorded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._schema.name not in _READS:
            self.operations.append((func, args, kwargs or {}, out))
        return out

    def replay(self, arguments: dict[int, Tensor]) -> dict[int, Tensor]:
        """Run all operations with `given` in the place of some tensors; all by the id of theirs."""
        result = dict(arguments)

        def current(x: Any) -> Any:
            return result.get(id(x), x) if isinstance(x, Tensor) else x

        for func, args, kwargs, out in self.operations:
            again = func(*tree_map(current, args), **tree_map(current, kwargs))
            for old, new in zip(tree_flatten(out)[0], tree_flatten(again)[0], strict=True):
                if isinstance(old, Tensor):
                    result[id(old)] = new
        return result


class RecordedGraphs:
    """`CudaGraphs` on a CPU: a replay writes into the tensors of the recording."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def unsupported(self, device: torch.device) -> str | None:  # noqa: ARG002
        return None

    def record(self, step: Step, inputs: Inputs) -> Step:
        self.recorded += 1
        own = {name: tensor.detach().clone() for name, tensor in inputs.items()}
        with Recording() as recording:
            result = step(own)
        static = [result.values, *result.gradients]

        def replay(arguments: Inputs) -> Result:
            self.replayed += 1
            with torch.no_grad():
                value = recording.replay({id(own[name]): arguments[name] for name in own})
                for tensor in static:
                    tensor.copy_(value[id(tensor)])
            return result

        return replay

"""Runs micro-steps as graphs, one for each shape that comes again.

What a replay gives enters autograd as a loss whose gradients are already known: they are copied as
they leave the graph's memory, so that micro-batches add up, and pass through the hooks of ZeRO.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.sde.problem import EULER
from sdevid.sde.rhythm import Rhythm
from sdevid.train.graph.cuda_graph import CudaGraphs
from sdevid.train.graph.micro_step import Inputs, Result, Step, Terms, micro_step

_MOST = 4  # graphs kept: each holds the activations of its micro-step
_REMEMBERED = 256  # shapes seen once

Key = tuple[object, ...]


class Recorder(Protocol):
    """Makes a graph of a micro-step: `CudaGraphs`."""

    def unsupported(self, device: torch.device) -> str | None:
        """Say why nothing can be recorded on `device`, or None if it can."""

    def record(self, step: Step, inputs: Inputs) -> Step:
        """Record `step` for inputs of these shapes.

        Each call of what it returns overwrites the previous call's result.
        """


def unsupported(config: Config, device: torch.device, recorder: Recorder) -> str | None:
    """Say why training runs without graphs, or None if it has them."""
    if config.train_graph == "off":
        return "train_graph is off"
    if config.zero_stage == 3:
        return "ZeRO 3 gathers weights as their own modules are called"
    if config.capabilities.simulates and config.sde.solver != EULER:
        return f"{config.sde.solver} looks at its coefficients as it solves"
    if config.encoder.pack:
        return "encoder.pack packs clips of other lengths in every micro-batch"
    return recorder.unsupported(device)


def check(config: Config, device: torch.device, recorder: Recorder) -> None:
    """Raise UserError where `train_graph` is on and training cannot run by graphs."""
    reason = unsupported(config, device, recorder)
    if config.train_graph == "on" and reason is not None:
        raise UserError(f"train_graph is on, but {reason}; set train_graph=auto, or change that")


def describe(config: Config, device: torch.device, recorder: Recorder | None = None) -> str:
    """Describe for the start of a run whether graphs are used."""
    reason = unsupported(config, device, recorder or CudaGraphs())
    return "each micro-step one graph" if reason is None else f"no graph: {reason}"


class TrainGraph:
    """The objective's `forward` by graphs; a shape's first micro-step runs without one.

    A shape is that of the tensors and the rhythm of the clips' times. From the second time on a
    graph of it is replayed; shapes beyond the first few that recur run without a graph, which `say`
    reports once. Without gradients nothing is recorded.
    """

    def __init__(
        self, objective: nn.Module, recorder: Recorder, say: Callable[[str], None]
    ) -> None:
        self._forward: Callable[..., Terms] = objective.forward
        self._objective, self._recorder, self._say = objective, recorder, say
        self._seen: set[Key] = set()
        self._graphs: dict[Key, _Graph] = {}
        self._is_announced = False

    def __call__(self, **inputs: Tensor) -> Terms:
        if not torch.is_grad_enabled():
            return self._forward(**inputs)
        rhythm: Rhythm | None = self._objective.model.rhythm  # type: ignore[union-attr,assignment]
        shapes = ((name, x.shape, x.dtype) for name, x in inputs.items())
        key = (rhythm, self._objective.training, *shapes)
        graph = self._graphs.get(key) or self._recorded(key, inputs)
        return self._forward(**inputs) if graph is None else graph.terms(inputs)

    def _recorded(self, key: Key, inputs: Inputs) -> _Graph | None:
        if key not in self._seen:
            if len(self._seen) == _REMEMBERED:
                self._seen.clear()
            self._seen.add(key)
            return None
        if len(self._graphs) == _MOST:
            if not self._is_announced:
                self._say(
                    f"train_graph: micro-batches come in more than {_MOST} shapes or rhythms of "
                    "times; those beyond the first run without a graph"
                )
            self._is_announced = True
            return None
        self._graphs[key] = _Graph(self._recorder.record(self._step, inputs))
        return self._graphs[key]

    def _step(self, inputs: Inputs) -> Result:
        return micro_step(self._forward, self._objective, inputs)


class _Graph:
    """A recorded micro-step, whose results are those of its latest turn."""

    def __init__(self, replay: Step) -> None:
        self._replay, self.turn = replay, 0
        self._parameters: tuple[nn.Parameter, ...] = ()

    def run(self, inputs: Inputs) -> Result:
        self.turn += 1
        return self._replay(inputs)

    def terms(self, inputs: Inputs) -> Terms:
        result = self.run(inputs)
        values: Tensor = _KnownGradients.apply(self, result, *result.parameters)  # type: ignore[no-untyped-call]
        return result.terms(values)


class _KnownGradients(torch.autograd.Function):
    """The terms' values as a function of the parameters, with the gradients of the loss."""

    @staticmethod
    def forward(ctx: Any, graph: _Graph, result: Result, *_parameters: Tensor) -> Tensor:
        ctx.graph, ctx.turn, ctx.result = graph, graph.turn, result
        return result.values.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.turn != ctx.graph.turn:
            raise RuntimeError("a graph was replayed before the backward pass of its last turn")
        scale = grads[0][ctx.result.names.index("loss")]
        return None, None, *torch._foreach_mul(list(ctx.result.gradients), scale)

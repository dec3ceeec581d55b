"""Captures a micro-step as a CUDA graph. The only file that knows torch's graphs."""

from __future__ import annotations

from typing import Any

import torch

from sdevid.train.graph.micro_step import Inputs, Result, Step

_WARM_UPS = 2  # kernels are compiled and chosen before the capture, which may do neither


class CudaGraphs:
    """Records micro-steps into one pool of memory; each graph keeps its inputs and results."""

    def __init__(self) -> None:
        self._pool: Any = None

    def unsupported(self, device: torch.device) -> str | None:
        """Say why nothing can be recorded on `device`, or None if it can."""
        return None if device.type == "cuda" else f"training is on {device.type}"

    def record(self, step: Step, inputs: Inputs) -> Step:
        """Record `step` as a graph for inputs of these shapes; return its replay.

        Each call overwrites the previous call's result.
        """
        own = {name: tensor.detach().clone() for name, tensor in inputs.items()}
        self._warm_up(step, own)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        torch.clear_autocast_cache()  # a cast of a weight made before is not part of the graph
        with torch.cuda.graph(graph, pool=self._pool):
            result = step(own)
        torch.clear_autocast_cache()

        def replay(inputs: Inputs) -> Result:
            for name, tensor in own.items():
                tensor.copy_(inputs[name], non_blocking=True)
            graph.replay()
            return result

        return replay

    @staticmethod
    def _warm_up(step: Step, inputs: Inputs) -> None:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                step(inputs)
        torch.cuda.current_stream().wait_stream(side)

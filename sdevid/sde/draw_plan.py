"""A step's draws on a device, in one launch.

A draw is a function of (seed, clip serial, stream, component) alone, so that it may be made ahead:
what the last step asked for is drawn at the start of the next one. A draw that was not foreseen is
made when it is asked for, and one that nobody asks for is dropped; neither changes a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from sdevid_kernels import philox
from sdevid_kernels.philox.reference import Draw
from torch import Tensor

MOST = 16  # draws of a launch


class DrawPlan:
    """The draws of a step, foreseen from the step before."""

    def __init__(self) -> None:
        self.draws: tuple[Draw, ...] = ()

    @contextmanager
    def step(self, seed: int, serial: Tensor) -> Iterator[None]:
        """Serve, inside, draws by `seed` for the clips of this very `serial` from one launch."""
        step = _Step(seed, serial, self.draws)
        token = _STEP.set(step)
        try:
            yield
        finally:
            _STEP.reset(token)
        self.draws = tuple(step.asked)[:MOST]


class _Step:
    def __init__(self, seed: int, serial: Tensor, planned: tuple[Draw, ...]) -> None:
        self.seed, self.serial = seed, serial
        self.asked: dict[Draw, None] = {}  # in order
        made = philox.together(seed, serial, planned) if planned else []
        self._ready = dict(zip(planned, made, strict=True))

    def draw(self, what: Draw) -> Tensor | None:
        """Give a draw away once: whoever asks again may have changed the first in place."""
        self.asked[what] = None
        return self._ready.pop(what, None)


_STEP: ContextVar[_Step | None] = ContextVar("_STEP", default=None)


def drawn(seed: int, serial: Tensor, what: Draw) -> Tensor:
    """Draw (batch, size), float32, on the device of `serial`."""
    step = None if torch.compiler.is_compiling() else _STEP.get()
    if step is not None and step.serial is serial and step.seed == seed:
        ready = step.draw(what)
        if ready is not None:
            return ready
    return philox.together(seed, serial, [what])[0]

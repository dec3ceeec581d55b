"""Brownian increments and other draws as a pure function of (seed, clip serial, tick, component).

Counter of Philox4x32-10: c0 and c1 hold a flat 64-bit index (place * groups + group, where a group
is four components), c2 holds the stream (8 bits), the level of the Brownian bridge (8 bits) and the
serial's bits 32 to 47, c3 the serial's low 32 bits; the key is the seed. Nothing depends on the
batch, so any split over devices, any resume and any kernel draw the same.
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Float, Int64
from sdevid_kernels import philox as on_device
from sdevid_kernels.philox.reference import Draw
from torch import Tensor

from sdevid.errors import UserError
from sdevid.sde import philox
from sdevid.sde.draw_plan import drawn
from sdevid.sde.rhythm import Rhythm, rhythm_of
from sdevid.transfer import to_device
from sdevid.types import TICKS_PER_UNIT


class Stream(IntEnum):
    """Independent random streams of one clip. Numbers are part of every run: append only."""

    PATH = 0  # the Brownian path
    INITIAL = 1  # z_0
    CONTENT = 2  # the static content code
    CONTEXT = 3  # which frames are observed
    CROP = 4  # which part of a longer clip
    OBSERVATION = 5  # noise of the observation model
    TEXT = 6  # whether the prompt is dropped
    TIME = 7  # times of a simulation-free objective
    AREA = 8  # the area under the Brownian path
    COMPONENT = 9  # which component of p(z_0 | c)
    MARGINAL = 10  # states at the times of a simulation-free objective
    FRAMES = 11  # which frames such an objective decodes
    TIMES = 12  # at which times a clip's frames are taken
    ROLL = 13  # from which frame the prior is rolled on
    ROLL_PATH = 14  # and on which path
    ROLL_STEP = 15  # of one step and two halves
    BIRTH = 16  # of the chain that ends at (w, z_0)
    BIRTH_STEP = 17  # which of its steps are drawn in training
    CAPTION = 18  # which of several captions of a clip
    ANCHOR = 19  # which past frame a bridge sees, and how much noise the one it leaves has
    CONTEXT_NOISE = 20  # that noise
    FUTURE = 21  # the paths of futures that training scores
    FUTURE_START = 22  # where they begin
    RING = 23  # particles outside the picture
    PICTURE = 24  # frames' latents, by an autoencoder that gives a mean and a scale
    FUTURE_FRAMES = 25  # which frames of such futures are decoded
    POSE = 26  # a thing's pose at its birth


def normal(
    seed: int, serial: Int64[Tensor, " batch"], stream: Stream, shape: tuple[int, ...]
) -> Float[Tensor, "batch *shape"]:
    """Draw standard normals for each clip, float32 on the device of `serial`."""
    groups, size = _groups(shape)
    if not on_host(serial):
        return drawn(seed, serial, Draw(size, int(stream), True)).view(-1, *shape)
    index = torch.arange(groups).expand(len(serial), groups)
    draws = _draw(seed, serial, stream, 0, index)
    return draws[:, :size].reshape(-1, *shape)


def uniform(
    seed: int, serial: Int64[Tensor, " batch"], stream: Stream, shape: tuple[int, ...]
) -> Float[Tensor, "batch *shape"]:
    """Draw uniforms in [0, 1) for each clip, float32 multiples of 2**-24."""
    groups, size = _groups(shape)
    if not on_host(serial):
        return drawn(seed, serial, Draw(size, int(stream), False)).view(-1, *shape)
    index = torch.arange(groups).expand(len(serial), groups)
    lanes = philox.words(seed, *_counter(serial, stream, 0, index))
    draws = (lanes >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
    flat = torch.from_numpy(draws).view(len(serial), -1)
    return flat[:, :size].reshape(-1, *shape)


def uniform_at(
    seed: int,
    serial: Int64[Tensor, " batch"],
    stream: Stream,
    ticks: Int64[Tensor, "batch time"],
    shape: tuple[int, ...],
) -> Float[Tensor, "batch time *shape"]:
    """Draw uniforms in [0, 1) for each clip at each tick, whatever the ticks around it."""
    groups, size = _groups(shape)
    if not on_host(serial):
        draws = on_device.uniforms(seed, serial, ticks, size, int(stream))
        return draws.reshape(*ticks.shape, *shape)
    index = ticks.t()[..., None] * groups + torch.arange(groups)
    lanes = philox.words(seed, *_counter(serial, stream, 0, index))
    uniforms = (lanes >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
    flat = torch.from_numpy(uniforms).view(*index.shape[:2], -1)[..., :size]
    return flat.transpose(0, 1).reshape(*ticks.shape, *shape)


def on_host(serial: Int64[Tensor, " batch"]) -> bool:
    """Check whether numpy draws for these clips; else a kernel does, on their device."""
    return serial.device.type == "cpu"


class Brownian:
    """W on each clip's absolute ticks, standard in units of time, components independent.

    The increment over one whole cell (`cell` ticks, aligned at multiples) is one draw; inside a
    cell a Brownian bridge halves the integer interval [a, b) at (a + b) // 2, so that finer times
    refine the same path; longer increments are sums. Nothing is stored but the increments asked
    for.

    `rhythm` bounds that of all ticks asked for; without it, ticks on a device are read for it,
    which waits.
    """

    def __init__(
        self,
        seed: int,
        serial: Int64[Tensor, " batch"],
        shape: tuple[int, ...],
        cell: int,
        rhythm: Rhythm | None = None,
    ) -> None:
        if cell < 1:
            raise UserError(f"cell is {cell} ticks, but the Brownian path needs at least 1")
        self.seed, self.shape, self.cell = seed, shape, cell
        self.serial, self.device, self.rhythm = serial, serial.device, rhythm
        self.groups, self.size = _groups(shape)

    def increments(
        self, ticks: Int64[Tensor, "batch points"]
    ) -> Float[Tensor, "batch steps *shape"]:
        """Draw W(t[k+1]) - W(t[k]) in sqrt(units of time), float32; zero between equal ticks.

        Raises UserError where ticks are negative or fall.
        """
        rhythm, ticks = self._rhythm(ticks), self._on(ticks)
        cells = ticks.div(self.cell, rounding_mode="floor")
        if rhythm.is_whole:
            steps = self._cell_increments(cells[:, :-1]) * (ticks.diff(dim=1) > 0)[..., None]
        else:
            steps = self._general(ticks, cells, rhythm)
        return steps.view(*steps.shape[:2], *self.shape)

    def whole_cells(
        self, ticks: Int64[Tensor, "batch points"]
    ) -> Int64[Tensor, "batch steps"] | None:
        """Find each step's cell, where every step spans one whole cell or no time; else None.

        A step's increment is then its cell's draw times the root of its time.
        """
        if not self._rhythm(ticks).is_whole:
            return None
        return self._on(ticks[:, :-1].div(self.cell, rounding_mode="floor"))

    def areas(self, ticks: Int64[Tensor, "batch points"]) -> Float[Tensor, "batch steps *shape"]:
        """Draw the integral of W(s) - W(t[k]) over [t[k], t[k+1]], in units of time^1.5, float32.

        Raises UserError where a tick is no multiple of the cell: the area is drawn a cell.
        """
        rhythm, ticks = self._rhythm(ticks), self._on(ticks)
        if rhythm.halvings:
            raise UserError(
                f"the area under the path is drawn for cells of {self.cell} ticks, but some ticks "
                "lie inside one; take steps of whole cells, or a smaller cell"
            )
        cells = ticks.div(self.cell, rounding_mode="floor")
        first = cells[:, :1]
        every = first + torch.arange(rhythm.span + 1, device=self.device)
        span = self.cell / TICKS_PER_UNIT
        moves, bends = self._cell_increments(every), self._draw(every, 0, Stream.AREA)
        before = torch.nn.functional.pad(moves.double().cumsum(1), (0, 0, 1, 0))
        a_cell = 0.5 * span * (moves.double() + bends * math.sqrt(span / 3))
        under = torch.nn.functional.pad((a_cell + before[:, :-1] * span).cumsum(1), (0, 0, 1, 0))
        index = (cells - first)[..., None].expand(-1, -1, self.size)
        level = before.gather(1, index)[:, :-1]
        spans = ticks.diff(dim=1)[..., None].double() / TICKS_PER_UNIT
        areas = (under.gather(1, index).diff(dim=1) - level * spans).float()
        return areas.view(*areas.shape[:2], *self.shape)

    def _rhythm(self, ticks: Tensor) -> Rhythm:
        if self.rhythm is None or ticks.device.type == "cpu":
            return rhythm_of(ticks, self.cell)
        return self.rhythm

    def _cell_increments(self, cells: Int64[Tensor, "batch steps"]) -> Tensor:
        return self._draw(cells, level=0, deviation=math.sqrt(self.cell / TICKS_PER_UNIT))

    def _draw(
        self,
        cells: Int64[Tensor, "batch steps"],
        level: int,
        stream: Stream = Stream.PATH,
        deviation: float = 1.0,
    ) -> Tensor:
        """Draw (batch, steps, size); on a CPU time comes first in memory, a solver's order."""
        if not on_host(self.serial):
            tag = int(stream) | level << 8
            draws = on_device.normals(self.seed, self.serial, cells, self.size, tag)
            return draws if deviation == 1 else draws.mul_(deviation)
        index = cells.t()[..., None] * self.groups + torch.arange(self.groups)
        draws = _draw(self.seed, self.serial, stream, level, index, deviation)
        return draws[..., : self.size].transpose(0, 1)

    def _on(self, ticks: Tensor) -> Tensor:
        return to_device(ticks, self.device)

    def _general(self, ticks: Tensor, cells: Tensor, rhythm: Rhythm) -> Tensor:
        first = cells[:, :1]
        every = first + torch.arange(rhythm.span + 1, device=self.device)
        draws = self._cell_increments(every)
        sums = torch.nn.functional.pad(draws.double().cumsum(1), (0, 0, 1, 0))
        index = (cells - first)[..., None].expand(-1, -1, self.size)
        inside = self._bridge(ticks, cells, draws.gather(1, index), rhythm.halvings)
        return (sums.gather(1, index) + inside).diff(dim=1).float()

    def _bridge(self, ticks: Tensor, cells: Tensor, whole: Tensor, halvings: int) -> Tensor:
        """Draw W(tick) - W(start of its cell), given the increment over the whole cell."""
        low, high = cells * self.cell, (cells + 1) * self.cell
        w_low, w_high = torch.zeros_like(whole), whole
        for level in range(1, halvings + 1):
            middle = (low + high).div(2, rounding_mode="floor")
            left, right = (middle - low).float(), (high - middle).float()
            share = (left / (left + right))[..., None]
            spread = (left * right / (left + right) / TICKS_PER_UNIT).sqrt()[..., None]
            w_middle = torch.lerp(w_low, w_high, share) + spread * self._draw(middle, level)
            is_inside = (ticks >= middle) & (low < ticks)
            behind = ticks < middle
            low, high = middle.where(is_inside, low), middle.where(behind, high)
            w_low = w_middle.where(is_inside[..., None], w_low)
            w_high = w_middle.where(behind[..., None], w_high)
        return w_low


def _groups(shape: tuple[int, ...]) -> tuple[int, int]:
    size = math.prod(shape)
    return -(-size // philox.LANES), size


def _counter(
    serial: Tensor, stream: Stream, level: int, index: Tensor
) -> tuple[philox.Counters, philox.Counters, philox.Counters]:
    """Build the counter words of an `index` (..., batch, counters)."""
    high = (serial >> 32 & 0xFFFF) << 16 | level << 8 | int(stream)
    words = (index, *(x[:, None].expand_as(index) for x in (high, serial & 0xFFFFFFFF)))
    counters, c2, c3 = (x.reshape(-1).numpy().view(np.uint64) for x in words)
    return counters, c2, c3


def _draw(
    seed: int, serial: Tensor, stream: Stream, level: int, index: Tensor, deviation: float = 1.0
) -> Tensor:
    """Draw normals (..., batch, 4 * counters) for a 64-bit `index` (..., batch, counters)."""
    draws = philox.normals(seed, *_counter(serial, stream, level, index), deviation)
    return torch.from_numpy(draws).view(*index.shape[:-1], 4 * index.shape[-1])

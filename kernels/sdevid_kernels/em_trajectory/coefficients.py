"""g, u and r of a chain from what its networks put out, and the way back, in place.

`Spec` and the names are the reference's: a motion is unit * output (less h where `own`), q = motion
/ g is bent to u, b = tanh z bends g. Where g does not depend on the state, it is laid out once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sdevid_kernels.em_trajectory.reference import WIDTH_START


class Spec(NamedTuple):
    """What is no tensor: how many weights each network has, and how g, u and r are read."""

    drift: int
    control: int = 0
    bound: float | None = None
    width: bool = False
    unit: float | None = None
    own: bool = False
    slope: bool = False  # g depends on the state
    floor: float = 0.0
    start: float = 0.0
    stratonovich: bool = False


class Bend(NamedTuple):
    """g at one state and what its derivative takes."""

    tanh: Tensor
    rise: Tensor  # dg/dlevel
    g: Tensor


class Reader:
    """Reads one step's coefficients. `levels`: g, or its level and slope, each (rows, d)."""

    def __init__(self, spec: Spec, levels: list[Tensor], like: Tensor) -> None:
        self.spec = spec
        self.levels = [level.expand_as(like).contiguous() for level in levels]
        self.g = None if spec.slope else self.levels[0]
        self.scale = torch.empty_like(like)
        if self.g is not None and spec.unit is not None:
            self.per_g = self.g.reciprocal()
            self.offset = (spec.unit * self.per_g).log_() + WIDTH_START
            self.unit_per_g = spec.unit * self.per_g

    def bend(self, z: Tensor) -> Bend:
        """g at `z`, with slope."""
        level, slope = self.levels
        tanh = torch.tanh(z)
        raised = torch.addcmul(level, slope, tanh).add_(self.spec.start)
        g = torch.nn.functional.softplus(raised).add_(self.spec.floor)
        return Bend(tanh, raised.sigmoid_(), g)

    def correct(self, h: Tensor, bend: Bend) -> None:
        """Add 1/2 g dg/dz to `h` where the drift is Stratonovich's."""
        if self.spec.stratonovich:
            h.addcmul_(bend.g, self.slope_of(bend), value=0.5)

    def slope_of(self, bend: Bend) -> Tensor:
        """dg/dz"""
        return bend.rise * self.levels[1] * (1 - bend.tanh.square())

    def control(self, raw: Tensor, h: Tensor, g: Tensor, q: Tensor | None) -> None:
        """u in place of the outputs `raw`; `q` keeps what the bound bends, if asked for."""
        spec = self.spec
        if spec.unit is not None:
            if self.g is not None:
                raw.mul_(self.unit_per_g)
                if spec.own:
                    raw.addcmul_(h, self.per_g, value=-1)
            else:
                raw.mul_(spec.unit)
                (raw.sub_(h) if spec.own else raw).div_(g)
        if q is not None:
            q.copy_(raw)
        if spec.bound is not None:
            raw.div_(spec.bound).tanh_().mul_(spec.bound)

    def width(self, raw: Tensor, g: Tensor) -> Tensor:
        """r in place of the outputs `raw`; returns r g."""
        spec = self.spec
        if spec.unit is None:
            raw.add_(WIDTH_START)
        elif self.g is not None:
            raw.add_(self.offset)
        else:
            raw.add_((spec.unit / g).log_().add_(WIDTH_START))
        return torch.mul(raw.sigmoid_(), g, out=self.scale)


class ReaderBack:
    """The way back through what a reader reads, a step at a time, for `levels`' gradients."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.levels = [torch.zeros_like(level) for level in reader.levels]

    def motion(self, for_q: Tensor, for_h: Tensor, g: Tensor) -> None:
        """The outputs' gradient in place of q's, and h's share of it."""
        spec, reader = self.reader.spec, self.reader
        if spec.unit is None:
            return
        if reader.g is not None:
            for_q.mul_(reader.per_g)
        else:
            for_q.div_(g)
        if spec.own:
            for_h.sub_(for_q)
        for_q.mul_(spec.unit)

    def state(self, for_g: Tensor, for_h: Tensor, bend: Bend, into: Tensor) -> None:
        """Add what g's and h's gradients mean for the state, and for level and slope."""
        reader = self.reader
        slope = reader.levels[1]
        flat = 1 - bend.tanh.square()
        sharp = bend.rise * (1 - bend.rise)  # d2g/dlevel2
        for_level, for_slope, for_tanh = for_g * bend.rise, None, None
        if reader.spec.stratonovich:  # h += 1/2 g dg/dz
            half = 0.5 * for_h
            risen = bend.rise * slope * flat
            for_level.addcmul_(half, risen * bend.rise)
            for_level.addcmul_(half * bend.g, slope * flat * sharp)
            each = half * bend.g * bend.rise
            for_slope, for_tanh = each * flat, each * slope * bend.tanh * -2
        self.levels[0] += for_level
        self.levels[1].addcmul_(for_level, bend.tanh)
        down = for_level * slope
        if for_slope is not None and for_tanh is not None:
            self.levels[1] += for_slope
            down += for_tanh
        into.addcmul_(down, flat)

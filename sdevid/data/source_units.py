"""Pixels as values of the source: undo how the shards store them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdevid.config import SourceConfig
from sdevid.data import transforms
from sdevid.data.transforms import Transform
from sdevid.errors import UserError

GREY = 255.0
_FORM = "give log:LOW:HIGH:UNIT or linear:LOW:HIGH:UNIT, for example log:0.1:100:mm/h"


@dataclass(frozen=True)
class SourceUnits:
    """How grey levels, or frames in [0, 1], stand for values of the source.

    `linear` runs evenly from `low` at black to `high` at white, `log` evenly in the logarithm; in a
    `log` scale black itself stands for 0 (no rain), since smaller values cannot be told apart. A
    `transform` of the shards is undone instead.
    """

    scale: str = "linear"
    low: float = 0.0
    high: float = GREY
    unit: str = "grey levels"
    transform: Transform | None = None

    def values(self, frames: NDArray[Any]) -> NDArray[np.float32]:
        """Convert uint8 pixels, or frames in [0, 1] with NaN kept, to values of the source."""
        if frames.dtype == np.uint8:
            values: NDArray[np.float32] = self._table()[frames]
            return values
        if self.transform is not None:
            return self.transform.undo(frames)
        levels = np.arange(GREY + 1) / GREY
        interpolated: NDArray[np.float32] = np.interp(frames, levels, self._table()).astype("f4")
        return interpolated

    def mapped(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert values of the source to a model's: grey levels, or a transform's in depth.

        Grey levels with NaN, which is kept, become float32 in [0, 1].
        """
        if self.transform is not None:
            return self.transform.apply(values)
        pixels, absent = self.pixels(values), np.isnan(values)
        if not absent.any():
            return pixels
        return np.where(absent, np.float32(np.nan), pixels / np.float32(GREY))

    def pixels(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Convert values of the source to the nearest grey levels, uint8."""
        table = self._table()
        middles = (table[1:] + table[:-1]) / 2
        return np.searchsorted(middles, values).astype(np.uint8)

    def _table(self) -> NDArray[np.float32]:
        share = np.arange(GREY + 1) / GREY
        if self.transform is not None:
            return self.transform.undo(share)
        if self.scale == "log":
            table = self.low * (self.high / self.low) ** share
            table[0] = 0.0
        else:
            table = self.low + (self.high - self.low) * share
        return table.astype(np.float32)


def of_config(source: SourceConfig) -> SourceUnits:
    """Build the units from the config of a run or an export, which has them from its shards."""
    if source.transform == "none":
        return SourceUnits(unit=source.unit or "grey levels")
    name, low, high, eps, unit = (
        getattr(source, field) for field in ("transform", "low", "high", "eps", "unit")
    )
    return SourceUnits(
        unit=unit or "source's units", transform=Transform(name, low, high, eps, unit)
    )


def parse(text: str | None, dataset: Mapping[str, Any]) -> SourceUnits:
    """Read `--values`, or else the transform or `values` of dataset.json, or else 0 to 255.

    Raises UserError for text that is no scale.
    """
    transform = transforms.of_dataset(dataset)
    if transform is not None and not text:
        return SourceUnits(unit=transform.unit or "source's units", transform=transform)
    text = text or dataset.get("values")
    if not text:
        return SourceUnits()
    parts = str(text).split(":", 3)
    try:
        scale, low, high, unit = parts[0], float(parts[1]), float(parts[2]), parts[3]
    except (IndexError, ValueError) as error:
        raise UserError(f"--values is {text!r}, which is no scale; {_FORM}") from error
    if scale not in ("log", "linear") or not low < high or (scale == "log" and low <= 0):
        raise UserError(
            f"--values is {text!r}, but LOW must be below HIGH, and above 0 for log; {_FORM}"
        )
    return SourceUnits(scale, low, high, unit)

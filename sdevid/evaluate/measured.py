"""A figure with its standard error."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A mean over independent units (clips or paths) and the standard error of that mean."""

    mean: float
    standard_error: float  # NaN for a single unit

    def as_json(self) -> dict[str, float | None]:
        return {name: finite(value) for name, value in asdict(self).items()}


def mean_over(units: Floats) -> Measured:
    """Mean over the first axis, one value a unit; units that are NaN are left out."""
    kept = units[np.isfinite(units)]
    if kept.size == 0:
        return Measured(float("nan"), float("nan"))
    error = kept.std(ddof=1) / np.sqrt(kept.size) if kept.size > 1 else float("nan")
    return Measured(float(kept.mean()), float(error))


def finite(value: float) -> float | None:
    """`value` as JSON can say it: None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None

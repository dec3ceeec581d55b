"""Named transforms between a source's values and those of a model, kept in dataset.json.

Each maps [low, high] to [0, 1] by x -> (f(x) - f(low)) / (f(high) - f(low)), f the identity, the
logarithm of x + eps, or the square root. Values beyond are not cut off; NaN stays NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdevid.errors import UserError

Values = NDArray[Any]
FORMS = "range LOW HIGH, percentile LOW HIGH, log EPS, sqrt or standardise"
_COUNTS = {"range": 2, "percentile": 2, "log": 1, "sqrt": 0, "standardise": 0}
_SAMPLE = 4_000_000  # values from which percentiles are taken, at most
_SPREAD = 4.0  # standard deviations on either side of the mean that fill [0, 1]


@dataclass(frozen=True)
class Transform:
    """Maps `low` to 0 and `high` to 1."""

    name: str
    low: float
    high: float
    eps: float = 0.0
    unit: str = ""  # of the source's values

    def apply(self, values: Values) -> NDArray[np.float32]:
        """Map the source's values to a model's, float32."""
        low, high = self._ends()
        mapped = (self._curve(values.astype(np.float32, copy=False)) - low) * (1 / (high - low))
        return mapped.astype(np.float32, copy=False)

    def undo(self, mapped: Values) -> NDArray[np.float32]:
        """Map a model's values back to the source's, float32."""
        low, high = self._ends()
        curved = mapped.astype(np.float32, copy=False) * (high - low) + low
        if self.name == "log":
            curved = np.exp(curved) - self.eps
        elif self.name == "sqrt":
            curved = np.square(np.maximum(curved, 0))
        return curved.astype(np.float32, copy=False)

    def as_json(self) -> dict[str, Any]:
        """Convert to the fields that dataset.json and the config keep."""
        return asdict(self)

    def _ends(self) -> tuple[float, float]:
        low, high = self._curve(np.array([self.low, self.high], np.float64)).tolist()
        return low, high

    def _curve(self, values: Values) -> Values:
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.name == "log":
                curved: Values = np.log(np.maximum(values, 0) + self.eps)
            elif self.name == "sqrt":
                curved = np.sqrt(np.maximum(values, 0))
            else:
                curved = values
        return curved


@dataclass(frozen=True)
class Statistics:
    """Statistics of all finite values of the training split."""

    minimum: float
    maximum: float
    mean: float
    deviation: float
    sample: Values  # some of the values, evenly spaced


def parse(text: str) -> tuple[str, tuple[float, ...]]:
    """Read `log 0.01` and the like. UserError where it is no transform, or its range is empty."""
    name, *words = text.split()
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        numbers = (float("nan"),)
    count = _COUNTS.get(name, -1)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise UserError(f"--transform is {text!r}, but must be {FORMS}")
    if count == 2 and not numbers[0] < numbers[1]:
        raise UserError(f"--transform is {text!r}, whose range is empty; give LOW below HIGH")
    if name == "percentile" and not (numbers[0] >= 0 and numbers[1] <= 100):
        raise UserError(f"--transform is {text!r}, but percentiles lie from 0 to 100")
    if name == "log" and numbers[0] <= 0:
        raise UserError(f"--transform is {text!r}, but EPS must be above 0, such as log 0.01")
    return name, numbers


def fit(text: str, statistics: Statistics, unit: str) -> Transform:
    """Fit the transform that `text` names to `statistics` of the training split.

    A range given in `text` is kept. Raises UserError where the range is empty.
    """
    name, numbers = parse(text)
    low, high = statistics.minimum, statistics.maximum
    if name == "range":
        low, high = numbers
    elif name == "percentile":
        low, high = np.percentile(statistics.sample, numbers).tolist()
    elif name == "standardise":
        low = statistics.mean - _SPREAD * statistics.deviation
        high = statistics.mean + _SPREAD * statistics.deviation
    elif name in ("log", "sqrt"):
        low = max(low, 0.0)
    if not low < high:
        raise UserError(
            f"--transform {text!r} has the range {low:g} to {high:g} in the training split, which "
            "is empty; the values do not vary there, so give other data, or range LOW HIGH"
        )
    return Transform(name, low, high, numbers[0] if name == "log" else 0.0, unit)


def of_dataset(dataset: Mapping[str, Any]) -> Transform | None:
    """Read the transform from dataset.json; None for uint8 video in [0, 255]."""
    text = dataset.get("transform")
    return None if text is None else Transform(**text)


def statistics(parts: Iterable[Values]) -> Statistics:
    """Summarise the values of these arrays in one pass. UserError where none is a number."""
    low, high, count, sums, squares = np.inf, -np.inf, 0, 0.0, 0.0
    sample: list[Values] = []
    step, held = 1, 0
    for part in parts:
        numbers = part[np.isfinite(part)].astype(np.float64)
        if not numbers.size:
            continue
        low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
        count, sums = count + numbers.size, sums + float(numbers.sum())
        squares += float(np.square(numbers).sum())
        sample.append(numbers[::step])
        held += len(sample[-1])
        if held > _SAMPLE:  # every other value from here on, and of what is kept
            sample, step = [kept[::2] for kept in sample], 2 * step
            held = sum(map(len, sample))
    if not count:
        raise UserError(
            "the training split holds no number at all: every value is NaN or infinite; check the "
            "variable and its fill value"
        )
    mean = sums / count
    deviation = float(np.sqrt(max(0.0, squares / count - mean**2)))
    return Statistics(low, high, mean, deviation, np.concatenate(sample))

"""The clock: frame rates as people write them, and the unit in which time is counted inside.

Inside, time is counted in units of the training frame interval, so that the same pictures train
alike whatever rate they are declared at. Seconds stand at the doors only.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from jaxtyping import Int64
from pydantic import BeforeValidator, model_validator
from torch import Tensor

from sdevid import types
from sdevid.errors import UserError
from sdevid.settings.setting import Section, setting
from sdevid.settings.yaml_file import read_settings

_SECONDS = {  # of the units that an interval may be written in
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "sec": Fraction(1),
    "second": Fraction(1),
    "min": Fraction(60),
    "minute": Fraction(60),
    "h": Fraction(3600),
    "hour": Fraction(3600),
    "d": Fraction(86_400),
    "day": Fraction(86_400),
    "week": Fraction(604_800),
}
_NUMBER = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?)(?:\s*/\s*([0-9.]+))?\s*([a-zµ]*)", re.IGNORECASE)

# What a run that was saved without `time_unit` counts in: seconds
_IN_SECONDS: dict[str, Any] = {
    "time_unit": 1.0,
    "sde": {"diffusion_floor": 1e-2, "diffusion_start": 0.5, "control_bound": 30.0},
    "encoder": {"time_period": 8.0},
    "follmer": {"noise": 2.0},
}

_REMOVED = {
    "matching": ("times", "scale_floor"),  # of the estimator that drew moments in time
    "sde": ("capture",),  # of the solve alone as a graph, which `train_graph` took over
}


def frame_rate(value: object) -> float:
    """Parse frames a second: a number or a text such as `8`, `29.97`, `30000/1001` or `1/120`.

    Raises ValueError with the rule and the remedy.
    """
    number, unit = _read(value, "fps", "a number or a fraction above 0, such as 8 or 30000/1001")
    if unit:
        raise ValueError(
            f"fps is {value!r}, but a frame rate has no unit; give frames a second, such as "
            f"{float(number):g}, or the time between frames by interval"
        )
    return float(number)


def interval(value: object, setting: str = "interval") -> float:
    """Parse seconds between frames: a number or a text such as `2min`, `0.5 s`, `40ms`, `1/25`.

    Raises ValueError with the rule and the remedy; `setting` is what it is called there.
    """
    number, unit = _read(value, setting, "a time above 0, such as 2min, 40ms or 0.5s")
    name = unit if unit in _SECONDS else unit.lower()
    name = name if name in _SECONDS else name.removesuffix("s")
    if unit and name not in _SECONDS:
        raise ValueError(
            f"{setting} is {value!r}, but {unit!r} is no unit of time here; give one of "
            f"{', '.join(_SECONDS)}"
        )
    return float(number * _SECONDS[name or "s"])


def _read(value: object, name: str, rule: str) -> tuple[Fraction, str]:
    match = _NUMBER.fullmatch(str(value).strip())
    try:
        if match is None or isinstance(value, bool):
            raise ValueError
        over, under, unit = match.groups()
        number = Fraction(over) / Fraction(under or 1)
        if not 0 < float(number) < float("inf"):
            raise ValueError
    except (ValueError, ArithmeticError):
        raise ValueError(f"{name} is {value!r}, but it must be {rule}") from None
    return number, unit


def rational(number: float) -> Fraction:
    """Round to the fraction meant: 30000/1001 for 29.97002997, 1/120 for 0.00833."""
    if number >= 1:
        return Fraction(number).limit_denominator(100_000)
    return 1 / Fraction(1 / number).limit_denominator(100_000)


def add_arguments(parser: argparse.ArgumentParser, default: float | None, help_text: str) -> None:
    """Add `--fps` and `--interval`, of which one may be given; both set `fps`."""
    either = parser.add_mutually_exclusive_group()
    rate, gap = _argument(frame_rate), _argument(lambda text: 1 / interval(text))
    either.add_argument("--fps", type=rate, default=default, help=f"frames a second ({help_text})")
    either.add_argument(
        "--interval",
        dest="fps",
        type=gap,
        default=argparse.SUPPRESS,
        help="seconds between frames, or e.g. 2min",
    )


def _argument(read: Callable[[str], float]) -> Callable[[str], float]:
    def argument(text: str) -> float:
        try:
            return read(text)
        except ValueError as error:
            raise UserError(f"--{error}") from error

    return argument


class Clock(Section):
    """How fast frames follow each other, and the unit that time is counted in inside."""

    fps: Annotated[float, BeforeValidator(frame_rate)] = setting(
        8.0,
        ge=1e-9,
        le=1e9,
        unit="frames per second",
        role="data",
        help="frame rate of the clips, a number or a fraction; or give `interval: 2min` instead",
    )
    time_unit: float = setting(
        0.125,
        gt=0,
        le=1e9,
        unit="seconds",
        role="architecture",
        help="unit of time inside; the frame interval 1/fps where it is not given",
    )

    @model_validator(mode="before")
    @classmethod
    def _resolved(cls, settings: Any) -> Any:
        if not isinstance(settings, dict):
            return settings
        resolved = dict(settings)
        if "interval" in resolved:
            if "fps" in resolved:
                raise ValueError(
                    f"fps is {resolved['fps']} and interval {resolved['interval']}, but they "
                    "say the same; give one of them"
                )
            resolved["fps"] = 1 / interval(resolved.pop("interval"))
        if resolved.get("time_unit") is None:
            resolved["time_unit"] = 1 / frame_rate(resolved.get("fps", 8.0))
        return resolved

    @model_validator(mode="after")
    def _fits(self) -> Clock:
        frames, least = self.fps * self.time_unit, 1e-6
        if not least <= frames <= types.TICKS_PER_UNIT:
            raise ValueError(
                f"time_unit is {self.time_unit:g} s, {frames:g} frames at fps {self.fps:g}, but "
                f"must be {least:g} to {types.TICKS_PER_UNIT:,} of them; leave it out"
            )
        return self

    def frames_per_unit(self, fps: float | None = None) -> Fraction:
        """Compute frames in a unit of time, at `fps` frames a second or at the training rate."""
        return rational((self.fps if fps is None else fps) * self.time_unit)

    def frame_ticks(self, num_frames: int, fps: float | None = None) -> Int64[Tensor, " time"]:
        """Compute the times of `num_frames` frames, in ticks from the first.

        `fps` None: the training rate.
        """
        return types.frame_ticks(num_frames, self.frames_per_unit(fps))

    def step_ticks(self, steps: int) -> int:
        """Split a training frame interval in `steps` equal parts; return one's ticks, 1 or more."""
        return max(1, round(types.TICKS_PER_UNIT / (self.frames_per_unit() * steps)))


def of_saved(settings: dict[str, Any]) -> dict[str, Any]:
    """Bring a run's saved settings up to date: those without a unit (0.1.0) count in seconds.

    Settings that nothing reads any more are left out.
    """
    kept = dict(settings)
    for section, names in _REMOVED.items():
        if isinstance(kept.get(section), dict):
            kept[section] = {k: v for k, v in kept[section].items() if k not in names}
    return kept if "time_unit" in settings else _beneath(kept, _IN_SECONDS)


def of_run(settings: dict[str, Any], config: Path) -> dict[str, Any]:
    """Add to `settings` the clock of the run that saved `config`; settings given explicitly win.

    Settings counted in the run's unit come with it, or the run could not be carried on.
    """
    saved = of_saved(read_settings(config)) if config.is_file() else {}
    theirs: dict[str, Any] = {}
    for name, value in _IN_SECONDS.items():
        if not isinstance(value, dict):
            theirs |= {name: saved[name]} if name in saved else {}
        elif isinstance(saved.get(name), dict):
            theirs[name] = {key: saved[name][key] for key in value if key in saved[name]}
    return _beneath(settings, theirs)


def _beneath(settings: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    merged = dict(settings)
    for name, value in defaults.items():
        own = settings.get(name)
        if isinstance(value, dict) and (own is None or isinstance(own, dict)):
            merged[name] = value | (own or {})
        elif own is None:
            merged[name] = value
    return merged

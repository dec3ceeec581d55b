"""Settings of what a model's values stand for; filled in from the shards that a run names."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from sdevid.settings.setting import Section, setting

_MOST = 1e30


class SourceConfig(Section):
    """How frames in [0, 1] are turned into values of the source, its type and its channels."""

    dtype: Literal["uint8", "uint16", "float16", "float32"] = setting(
        "uint8", role="data", help="type of the source's values; of the shards"
    )
    transform: Literal["none", "range", "percentile", "log", "sqrt", "standardise"] = setting(
        "none",
        role="data",
        help="transform that sampling undoes, of the shards; none: grey levels from 0 to 255",
    )
    low: float = setting(
        0.0,
        ge=-_MOST,
        le=_MOST,
        role="data",
        unit="the source's",
        help="value that is 0 in a model",
    )
    high: float = setting(
        255.0, ge=-_MOST, le=_MOST, role="data", unit="the source's", help="value that is 1 there"
    )
    eps: float = setting(
        0.0, ge=0, le=_MOST, role="data", unit="the source's", help="what log adds to a value"
    )
    unit: str = setting("", role="data", help="unit of the source's values")
    channel_names: tuple[str, ...] = setting((), role="data", help="names of the channels")

    @model_validator(mode="after")
    def _has_a_range(self) -> SourceConfig:
        if self.transform != "none" and not self.low < self.high:
            raise ValueError(
                f"source.low is {self.low:g} and source.high {self.high:g}, an empty range; give "
                "low below high"
            )
        if self.transform == "log" and self.eps <= 0:
            raise ValueError(f"source.eps is {self.eps:g}, but transform log needs it above 0")
        return self

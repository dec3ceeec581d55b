"""results.json and exit.json as they may come from a stranger: a form, sizes and ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from sdevid.data.schema import first_fault
from sdevid.errors import UserError

_MOST_BYTES = 64 * 2**20
_MOST_TEXT = 65_536  # characters
_DEEPEST = 20  # levels
_COUNTS = frozenset(  # never texts
    ("clips", "context", "samples", "videos", "rollouts", "rollout_frames", "members", "sources")
)


class Figure(BaseModel):
    """What was measured: a mean with its error and interval; null where nothing was."""

    model_config = ConfigDict(strict=True, extra="allow")

    mean: FiniteFloat | None
    standard_error: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    interval: Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)] | None = None


class Protocol(BaseModel):
    """How it was measured, as far as the page says it."""

    model_config = ConfigDict(strict=True, extra="allow")

    split: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "val"


class Results(BaseModel):
    """The fields of results.json: how it was measured, and a section of figures a metric."""

    model_config = ConfigDict(strict=True, extra="allow")

    protocol: Protocol
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _figures_are_figures(self) -> Self:
        _check(self.model_extra or {}, "results", 0)
        _check(self.protocol.model_dump(), "protocol", 0)
        _check(self.provenance, "provenance", 0)
        return self


_RESULTS = TypeAdapter(Results)
_ENDING = TypeAdapter(dict[str, str | FiniteFloat | bool | None])


def read_results(path: Path) -> dict[str, Any] | None:
    """Read results.json; None where there is none. UserError where it is out of form."""
    fields = read_form(path, _RESULTS)
    return None if fields is None else dict(fields.model_dump())


def read_ending(path: Path) -> dict[str, Any] | None:
    """Read exit.json; None where there is none. UserError where it is out of form."""
    fields: dict[str, Any] | None = read_form(path, _ENDING)
    return fields


def read_form(path: Path, form: TypeAdapter[Any]) -> Any:
    """Read a JSON file of this form; None if it is missing. UserError where it is out of form."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
        return form.validate_json(content)
    except ValidationError as error:
        raise UserError(f"{path} is damaged: {first_fault(error)}; make it anew") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}; make it anew") from error


def _check(value: Any, place: str, depth: int) -> None:
    """Raise ValueError, which names the place, where a value is out of form."""
    if depth > _DEEPEST:
        raise ValueError(f"{place[:200]} is nested more than {_DEEPEST} deep")
    if isinstance(value, str) and len(value) > _MOST_TEXT:
        raise ValueError(f"{place[:200]} is a text of {len(value):,} characters")
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise ValueError(f"{place[:200]} is {value}, which is no figure")
    if isinstance(value, int) and abs(value) > 2**63:
        raise ValueError(f"{place[:200]} is a number of {value.bit_length()} bits")
    if isinstance(value, dict):
        if not isinstance(value.get("mean", {}), dict):  # a forecast may be called mean
            Figure.model_validate(value)
        for name, part in value.items():
            if name in _COUNTS and isinstance(part, str):
                raise ValueError(f"{place[:200]}.{name} is {part[:60]!r}, which is no number")
            _check(part, f"{place}.{name}", depth + 1)
    elif isinstance(value, list):
        for part in value:
            _check(part, f"{place}[]", depth + 1)

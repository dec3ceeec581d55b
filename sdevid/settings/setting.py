"""A setting with its type, unit, range, role and help, stated once."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

Role = Literal["architecture", "objective", "runtime", "data"]
ROLES: tuple[Role, ...] = typing.get_args(Role)

_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >="}
_TYPE_NAMES = {bool: "boolean", int: "integer", float: "number", str: "text", Path: "path"}


class Section(BaseModel):
    """A frozen group of settings; unknown names, infinities and NaN are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _switch_words(cls, value: Any, info: ValidationInfo) -> Any:
        """Read a boolean as "on" or "off" where that is a choice: so YAML 1.1 reads the words."""
        if not isinstance(value, bool) or info.field_name is None:
            return value
        words = typing.get_args(cls.model_fields[info.field_name].annotation)
        word = "on" if value else "off"
        return word if word in words else value


@dataclass(frozen=True)
class Setting:
    """One setting as `sdevid settings`, the docs and resume see it."""

    path: str  # with dots, as in an override
    type: str  # "integer", "number", "a | b", ...
    unit: str | None
    default: Any
    role: Role
    help: str
    limits: str  # ">= 1, <= 64", or empty
    alters_loss: bool  # whether it changes the loss of given weights on a given batch


def setting(
    default: Any,
    *,
    role: Role,
    help: str,
    unit: str | None = None,
    alters_loss: bool | None = None,
    **limits: Any,
) -> Any:
    """Declare a pydantic field that also states its role, unit and help.

    `role` decides what a resumed run does with a change: `architecture` is refused, `objective` and
    `data` are reported, `runtime` is free. `alters_loss` says whether the same weights have another
    loss on the same batch after a change; by default True for architecture and objective. `limits`
    are pydantic's: ge, gt, le, lt, min_length.
    """
    if alters_loss is None:
        alters_loss = role in ("architecture", "objective")
    extra: dict[str, Any] = {"role": role, "unit": unit, "alters_loss": alters_loss}
    return Field(default, description=help, json_schema_extra=extra, **limits)


def all_settings(section: type[BaseModel], prefix: str = "") -> Iterator[Setting]:
    """Yield every setting of `section` and of the sections within it, in the order of declaration.

    Raises TypeError where a field was not declared by `setting`.
    """
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from all_settings(annotation, f"{prefix}{name}.")
        else:
            yield _described(f"{prefix}{name}", field)


def _described(path: str, field: FieldInfo) -> Setting:
    extra = field.json_schema_extra
    if not isinstance(extra, dict) or extra.get("role") not in ROLES or not field.description:
        raise TypeError(f"{path} has no role or no help; declare it by `setting(...)`")
    return Setting(
        path=path,
        type=_type_name(field.annotation),
        unit=typing.cast("str | None", extra["unit"]),
        default=field.get_default(call_default_factory=True),
        role=typing.cast(Role, extra["role"]),
        help=field.description,
        limits=", ".join(_limits(field)),
        alters_loss=bool(extra["alters_loss"]),
    )


def _limits(field: FieldInfo) -> Iterator[str]:
    for rule in field.metadata:
        for name, sign in _BOUNDS.items():
            if getattr(rule, name, None) is not None:
                bound = getattr(rule, name)
                yield f"{sign} {bound:,}" if isinstance(bound, int) else f"{sign} {bound:g}"


def _type_name(annotation: Any) -> str:
    if annotation in _TYPE_NAMES:
        return _TYPE_NAMES[annotation]
    if annotation is type(None):
        return "null"
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " | ".join(str(part) for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_name(part) for part in parts)
    if origin is tuple:
        return f"list of {_type_name(parts[0])}"
    if origin is typing.Annotated:
        return _type_name(parts[0])
    return str(annotation)

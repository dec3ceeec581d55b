"""In what two checkpoints, or a checkpoint and a run, differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def first_difference(saved: dict[str, list[int]], here: dict[str, tuple[int, ...]]) -> str | None:
    """Describe the first tensor in which two architectures differ; None where they are the same."""
    for name in [*here, *saved]:
        if name not in saved:
            return f"{name} of shape {here[name]} is not in it"
        if name not in here:
            return f"{name} of shape {tuple(saved[name])} is in it, but not in this model"
        if tuple(saved[name]) != here[name]:
            return f"{name} has shape {tuple(saved[name])} in it and {here[name]} in this model"
    return None


def differences(saved: dict[str, Any], here: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of settings that are not equal in two dumped configs."""
    for name in [*here, *(n for n in saved if n not in here)]:
        a, b = saved.get(name), here.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield prefix + name

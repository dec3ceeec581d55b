"""Public names of version 0.1.0: each stands for the present one and warns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any


def former_names(module: str, present: Mapping[str, Any]) -> Callable[[str], Any]:
    """Build a module's `__getattr__`, which answers to a former name with what it is now.

    A use gives a DeprecationWarning that names the present one.
    """

    def answer(name: str) -> Any:
        if name not in present:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        now = present[name]
        warnings.warn(
            f"{module}.{name} is {now.__name__} since 0.2.0", DeprecationWarning, stacklevel=2
        )
        return now

    return answer

"""Neural stochastic differential equations for video."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdevid.sample.video_sde import VideoSDE

__version__ = "0.1.0"
__all__ = ["VideoSDE", "__version__"]


def __getattr__(name: str) -> Any:
    """`VideoSDE`, imported when it is asked for: the command line starts without torch."""
    if name == "VideoSDE":
        return importlib.import_module("sdevid.sample.video_sde").VideoSDE
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

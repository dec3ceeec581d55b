"""Neural stochastic differential equations for video."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdevid.sample.forecaster import Forecaster
    from sdevid.sample.video_sde import VideoSDE

__version__ = "0.2.0"
__all__ = ["Forecaster", "VideoSDE", "__version__"]

_MODULES = {
    "Forecaster": "sdevid.sample.forecaster",
    "VideoSDE": "sdevid.sample.video_sde",
}


def __getattr__(name: str) -> Any:
    """Import a class when it is asked for: the command line starts without torch."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

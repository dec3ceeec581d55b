"""Named sizes of a model: settings that hold where a config gives none of its own."""

from __future__ import annotations

from typing import Any


def _size(
    hidden: int, depth: int, heads: int, features: int, layers: int, draw: tuple[int, int]
) -> dict[str, Any]:
    """A map latent moved by transformers, `depth` blocks each for prior and control.

    `draw` is channels and residual blocks of frame encoder and decoder. The decoder alone has a
    fifth of the parameters or more, where frames are 8 times the map's side or larger.
    """
    return {
        "sde": {
            "latent": "map",
            "latent_size": 16,
            "content_size": features,
            "backbone": "transformer",
            "hidden": hidden,
            "depth": depth,
            "heads": heads,
        },
        "encoder": {
            "channels": draw[0],
            "residual": draw[1],
            "features": features,
            "layers": layers,
            "heads": 4,
        },
    }


# A block has 18 hidden^2 parameters, a temporal layer 8 features^2, a residual block of the decoder
# 18 (8 channels)^2; text comes on top.
SIZES = {
    "S": _size(128, depth=2, heads=4, features=128, layers=2, draw=(32, 1)),  # 6 million
    "B": _size(384, depth=3, heads=6, features=256, layers=4, draw=(48, 2)),  # 34
    "L": _size(640, depth=4, heads=10, features=384, layers=6, draw=(64, 5)),  # 122
    "XL": _size(1024, depth=5, heads=16, features=512, layers=8, draw=(128, 4)),  # 385
    "1B": _size(1536, depth=6, heads=24, features=768, layers=8, draw=(200, 4)),  # 990
}


def applied(settings: dict[str, Any]) -> dict[str, Any]:
    """`settings` with those of the size that they name, where they say nothing themselves."""
    named = SIZES.get(str(settings.get("size")))
    if named is None:
        return settings
    merged = dict(settings)
    for section, values in named.items():
        own = settings.get(section)
        if own is None or isinstance(own, dict):
            merged[section] = values | (own or {})
    return merged

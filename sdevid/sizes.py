"""Named sizes of a model.

In a config a size fills in what is not given; on the command line it replaces the config's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from sdevid.errors import UserError


def _size(
    hidden: int, depth: int, heads: int, features: int, layers: int, draw: tuple[int, int]
) -> dict[str, Any]:
    """Build the settings of a map latent moved by transformers.

    `depth` is the number of blocks each for prior and control, `draw` the channels and residual
    blocks of frame encoder and decoder. The decoder alone has a fifth of the parameters or more,
    where frames are 8 times the map's side or larger.
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
# 18 (8 channels)^2. Beside: parameters with configs/default.yaml.
SIZES = {
    "S": _size(128, depth=2, heads=4, features=128, layers=2, draw=(32, 1)),  # 7 million
    "B": _size(384, depth=3, heads=6, features=256, layers=4, draw=(48, 2)),  # 35
    "L": _size(640, depth=4, heads=10, features=384, layers=6, draw=(64, 5)),  # 124
    "XL": _size(1024, depth=5, heads=16, features=512, layers=8, draw=(128, 4)),  # 388
    "1B": _size(1536, depth=6, heads=24, features=768, layers=8, draw=(200, 4)),  # 989
}


def applied(settings: dict[str, Any]) -> dict[str, Any]:
    """Fill in the defaults of the size that `settings` name; explicit settings win."""
    named = SIZES.get(str(settings.get("size")))
    if named is None:
        return settings
    merged = dict(settings)
    for section, values in named.items():
        own = settings.get(section)
        if own is None or isinstance(own, dict):
            merged[section] = values | (own or {})
    return merged


def ignore(_sentence: str) -> None:
    """Ignore a note."""


def over_file(
    settings: dict[str, Any], overrides: Sequence[str], note: Callable[[str], None] = ignore
) -> dict[str, Any]:
    """Put the size that `overrides` (key=value) name in place of a config file's own architecture.

    Other overrides win over the size. `note` takes a sentence on what of the file is replaced.
    Raises UserError where the file's latent has no named size.
    """
    explicit = {key: text for key, _, text in (o.partition("=") for o in overrides)}
    name = explicit.get("size", "")
    if name not in SIZES:
        return settings
    _refuse_particles(settings, name, explicit)
    merged, replaced = dict(settings), list[str]()
    for section, values in SIZES[name].items():
        own = settings.get(section) or {}
        if section in explicit or not isinstance(own, dict):
            continue
        new = {k: value for k, value in values.items() if f"{section}.{k}" not in explicit}
        merged[section] = own | new
        replaced += [
            f"{section}.{k} {own[k]} by {new[k]}" for k in new if own.get(k, new[k]) != new[k]
        ]
    if replaced:
        note(f"size={name} replaces the config's {', '.join(replaced)}")
    return merged


def _refuse_particles(settings: dict[str, Any], name: str, explicit: Collection[str]) -> None:
    sde = settings.get("sde")
    is_particles = isinstance(sde, dict) and sde.get("latent") == "particles"
    if is_particles and not {"sde", "sde.latent"} & set(explicit):
        raise UserError(
            f"size is {name}, a size of map latents, but sde.latent is particles, which have "
            "none; leave size out, or give sde.latent=map sde.noise=additive beside it"
        )

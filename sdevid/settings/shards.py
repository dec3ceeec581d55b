"""Settings that follow the shards, where a config does not give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sdevid.settings.run import DataSettings


def told_by_shards(settings: dict[str, Any]) -> dict[str, Any]:
    """Fill in frame settings from the local shards that `settings` name; explicit settings win."""
    folder = settings.get("data", DataSettings.model_fields["data"].default)
    path = Path(str(folder)) / "dataset.json"
    if not path.is_file():
        return settings
    try:
        dataset = json.loads(path.read_text(encoding="utf-8"))
        stated = {"channels": dataset["channels"]} if "channels" in dataset else {}
        if dataset.get("transform"):
            transform = dict(dataset["transform"])
            names = {"transform": transform.pop("name"), "dtype": dataset.get("dtype", "uint8")}
            stated["source"] = transform | names | {"channel_names": dataset["channel_names"]}
    except (ValueError, AttributeError, KeyError, TypeError):
        return settings  # opening the shards says what is wrong with it
    return stated | settings

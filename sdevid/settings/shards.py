"""Settings that follow the shards, where a config does not give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdevid.data.schema import MOST_BYTES, parse_json
from sdevid.settings.run import DataSettings


def told_by_shards(settings: dict[str, Any]) -> dict[str, Any]:
    """Fill in frame settings from the local shards that `settings` name; explicit settings win."""
    folder = settings.get("data", DataSettings.model_fields["data"].default)
    path = Path(str(folder)) / "dataset.json"
    limit = MOST_BYTES["dataset.json"]
    try:
        if not path.is_file() or path.stat().st_size > limit:
            return settings
        dataset = parse_json(path.read_bytes(), limit)
        stated = {"channels": dataset["channels"]} if "channels" in dataset else {}
        if dataset.get("transform"):
            transform = dict(dataset["transform"])
            names = {"transform": transform.pop("name"), "dtype": dataset.get("dtype", "uint8")}
            stated["source"] = transform | names | {"channel_names": dataset["channel_names"]}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return settings  # opening the shards says what is wrong with it
    return stated | settings

"""Text conditioning for training: choose the caption encoder and the source of its embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdevid.config import Config
from sdevid.data.shards import ShardIndex
from sdevid.data.webdataset_reader import TarStream
from sdevid.errors import UserError
from sdevid.models import frozen_text, text
from sdevid.models.text import Tokenizer
from sdevid.train.world import World


def open_text(
    config: Config, index: ShardIndex | TarStream, world: World
) -> tuple[Tokenizer | None, str]:
    """Choose what encodes captions (None for a model without text) and describe it in a line.

    Embeddings in the shards are used, by setting `index.embedded`, if the encoder of the config
    made them. Raises UserError if another encoder made them, or this one is not available.
    """
    encoder, recorded = config.text.encoder, index.dataset.get("text_encoder")
    if encoder == "none":
        return None, "text none"
    what = "captions, and labels where a clip has none"
    if index.dataset.get("clips_with_words") == 0:
        what = (
            f"no clip of {config.data} has a caption or label, so all are trained "
            "without; text.encoder=none saves the encoder"
        )
    if encoder in ("bytes", "words"):
        beside = "; the embeddings in the shards are not read" if recorded else ""
        return text.tokenizer(config), f"text {encoder}: {what}{beside}"
    if recorded is None or isinstance(index, TarStream):
        how = f"encoded on {world.device.type} as training goes on, since the shards hold none"
        return text.tokenizer(config, world.device), f"text {encoder}: {what}; {how}"
    apart = _apart(config, index, recorded)
    index.embedded = True
    return text.blank_tokenizer(
        config
    ), f"text {encoder}: {what}; embeddings from the shards{apart}"


def _apart(config: Config, index: ShardIndex, recorded: dict[str, Any]) -> str:
    """Say what could not be compared, since the folder lacks it; UserError if encoders differ."""
    here = frozen_text.identity(Path(config.text.encoder), config.text.length)
    difference = frozen_text.difference(recorded, here)
    if difference:
        raise UserError(
            f"text.encoder is {config.text.encoder} ({_named(here)}), but the embeddings in "
            f"{index.folder.location} were made by another ({_named(recorded)}): {difference}; "
            "give the folder and the text.length that they were made with, or make the shards anew "
            "with --text_encoder"
        )
    absent = [name for name in ("weights", "tokenizer") if here[name] is None]
    return f" (made by the same config; no {' or '.join(absent)} here to compare)" if absent else ""


def _named(encoder: dict[str, Any]) -> str:
    kind, width, weights = (encoder.get(name) for name in ("model_type", "width", "weights"))
    return f"{kind}, {width} wide, weights {weights}"

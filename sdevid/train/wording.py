"""What the model is told in words of the clips that it is trained on."""

from __future__ import annotations

from sdevid.config import Config
from sdevid.data.shards import ShardIndex


def describe(config: Config, index: ShardIndex) -> str:
    """For the first lines of a run: which encoder reads what."""
    encoder = config.text.encoder
    if encoder == "none":
        return "text none"
    if index.dataset.get("clips_with_words") == 0:
        return (
            f"text {encoder}, but no clip of {index.folder.location} has a caption or label: all "
            "are trained without; text.encoder=none saves the encoder"
        )
    return f"text {encoder}: captions, and labels where a clip has none"

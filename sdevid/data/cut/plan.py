"""What a cut is to write: its sources with their splits, its settings, and its identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sdevid.data.cut.sources import Listing
from sdevid.data.embedding import Embedder
from sdevid.data.latents import PictureEncoder
from sdevid.data.spec import ClipSource, CutSpec


@dataclass(frozen=True)
class Plan:
    """All that decides what a cut writes."""

    dataset: str
    sources: Sequence[tuple[str, ClipSource]]  # each with its split, split after split
    spec: CutSpec
    shard_size: int  # clips a tar
    settings: dict[str, Any]  # further ones, for dataset.json
    truth: dict[str, Any] | None = None  # of drawn motion
    listing: Listing = field(default_factory=Listing)  # of filmed data: all files and rows
    duplicates: int = 0  # videos of the same bytes as another
    arrays: Mapping[str, Any] | None = None  # dtype, channel_names, unit, transform of arrays
    embed: Embedder | None = None  # makes an embedding of what is said of each clip
    autoencoder: PictureEncoder | None = None  # makes latents of each clip's frames

    def encoders(self) -> dict[str, Any]:
        """Collect the identities of the frozen encoders, by their names in dataset.json."""
        named = {"text_encoder": self.embed, "autoencoder": self.autoencoder}
        return {name: used.identity for name, used in named.items() if used is not None}

    def identity(self) -> dict[str, Any]:
        """Describe, as JSON, what must not change for this cut to be resumed."""
        sources = [[split, source.identity()] for split, source in self.sources]
        text = json.dumps(sources, sort_keys=True).encode()
        settings = {**asdict(self.spec), "shard_size": self.shard_size, **self.settings}
        if self.spec.frame_width is None:
            del settings["frame_width"]
        if not self.spec.shots:  # as cuts from before there was a choice
            del settings["shots"]
        if self.arrays is not None:
            settings["arrays"] = dict(self.arrays)
        settings |= self.encoders()
        return {
            "dataset": self.dataset,
            "settings": settings,
            "inputs": hashlib.sha256(text).hexdigest(),
        }

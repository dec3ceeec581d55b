"""`sdevid shards`: cut videos, or draw them, into WebDataset shards."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sdevid.data.cut import command
from sdevid.data.embedding import Embedder
from sdevid.data.latents import PictureEncoder


def main(arguments: Sequence[str] | None = None) -> int:
    """Cut or draw shards, with what frozen encoders make of them; or `index` tars of others."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["index"]:
        from sdevid.data.cut import index_command

        return index_command.main(words[1:])
    return command.main(words, load_encoder=_load_encoder, load_autoencoder=_load_autoencoder)


def _load_encoder(folder: Path, length: int) -> Embedder:
    import torch

    from sdevid.models.frozen_text import FrozenText

    return FrozenText(folder, length, "cuda" if torch.cuda.is_available() else "cpu")


def _load_autoencoder(folder: Path) -> PictureEncoder:
    import torch

    from sdevid.autoencoder.frozen import FrozenAutoencoder

    return FrozenAutoencoder(folder, "cuda" if torch.cuda.is_available() else "cpu")

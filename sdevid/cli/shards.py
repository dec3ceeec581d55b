"""`sdevid shards`: cut videos, or draw them, into WebDataset shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdevid.data.cut import command
from sdevid.data.embedding import Embedder


def main(arguments: Sequence[str] | None = None) -> int:
    """Cut or draw shards; captions are embedded by the frozen encoder that is named, if any."""
    return command.main(arguments, load_encoder=_load_encoder)


def _load_encoder(folder: Path, length: int) -> Embedder:
    import torch

    from sdevid.models.frozen_text import FrozenText

    return FrozenText(folder, length, "cuda" if torch.cuda.is_available() else "cpu")

"""`sdevid shards`: cut videos, or draw them, into WebDataset shards."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sdevid.data.cut import command
from sdevid.data.embedding import Embedder


def main(arguments: Sequence[str] | None = None) -> int:
    """Cut or draw shards, with captions embedded by a frozen encoder; or `index` tars of others."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["index"]:
        from sdevid.data.cut import index_command

        return index_command.main(given[1:])
    return command.main(given, load_encoder=_load_encoder)


def _load_encoder(folder: Path, length: int) -> Embedder:
    import torch

    from sdevid.models.frozen_text import FrozenText

    return FrozenText(folder, length, "cuda" if torch.cuda.is_available() else "cpu")

"""Cut videos, or draw them, into WebDataset shards: `python tools/make_shards.py --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sdevid.data.cut import command
from sdevid.data.embedding import Embedder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `make_shards`, with frozen text encoders of Hugging Face."""
    return command.main(arguments, load_encoder=_load_encoder)


def _load_encoder(folder: Path, length: int) -> Embedder:
    import torch

    from sdevid.models.frozen_text import FrozenText

    return FrozenText(folder, length, "cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    sys.exit(main())

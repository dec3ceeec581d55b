"""A fingerprint of files, quick for large ones: which weights are these, wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_PIECES, _PIECE = 64, 2**16  # of a large file, and bytes of each, that are taken in


def fingerprint(files: Iterable[Path]) -> str | None:
    """Hash the files' names, sizes and content to 16 hexadecimal digits; None without files.

    A file is hashed whole, or by 64 pieces of 64 KiB spread over it where it is larger than they
    are.
    """
    digest, any_file = hashlib.sha256(), False
    for path in sorted(set(files)):
        any_file, size = True, path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if size <= _PIECES * _PIECE:
                digest.update(file.read())
                continue
            for piece in range(_PIECES):
                file.seek(piece * (size - _PIECE) // (_PIECES - 1))
                digest.update(file.read(_PIECE))
    return digest.hexdigest()[:16] if any_file else None

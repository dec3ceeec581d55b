"""metrics.jsonl, the record of a run: one JSON object a line."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from sdevid.atomic_file import replace_text
from sdevid.errors import UserError


def append(path: Path, text: str) -> None:
    """Write all of `text` at the end of a file or, where that raises OSError, none of it."""
    data = text.encode()
    with path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(end)
            raise


def forget_after(path: Path, clips: int) -> None:
    """Drop the lines of a metrics file that are torn or lie past `clips`: they are run again.

    Bytes that are no UTF-8, or a line that is no JSON object, cost that line alone. Raises
    UserError where the path is a folder, a pipe or a broken link.
    """
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_file():
        raise UserError(f"{path} is no regular file; move it away, and give the same command again")
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            if json.loads(line)["clips"] <= clips:
                kept.append(line.decode("utf-8") + "\n")
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    replace_text(path, "".join(kept))

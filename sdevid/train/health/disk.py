"""How much a file system still takes: bytes and inodes are told apart."""

from __future__ import annotations

import os
from pathlib import Path


def free(path: Path) -> str:
    """Describe the free space at `path`; says when inodes and not bytes have run out."""
    try:
        status = os.statvfs(path)
    except OSError as error:
        return f"how much is free at {path} cannot be told: {error.strerror}"
    mib = status.f_bavail * status.f_frsize / 2**20
    if status.f_files and not status.f_favail:
        return f"{mib:,.0f} MiB are free there, but no inode: remove files, whatever their size"
    return f"{mib:,.0f} MiB are free there"

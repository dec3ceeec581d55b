"""safetensors files: no code in them, and readable by whom the umask lets read."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdevid.errors import UserError


def save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write `tensors` to `path` with the permissions of any new file (safetensors gives 0600).

    Raises OSError that names `path` where it cannot be written.
    """
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:  # of the system, as its text alone says
        number = re.search(r"(?:os error|code:) (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error
    path.chmod(0o666 & ~_umask())


def load(path: Path) -> dict[str, Tensor]:
    """Read every tensor of `path`. Raises UserError if it is no safetensors file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, RuntimeError, MemoryError) as error:
        raise UserError(f"{path} is no whole safetensors file: {error}; copy it again") from error


def _umask() -> int:
    """Read the process's umask without setting it, as other threads may be creating files."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022

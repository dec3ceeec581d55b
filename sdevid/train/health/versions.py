"""What has to be the same on all nodes for them to train one model."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
from importlib import metadata
from pathlib import Path

import torch

_PACKAGES = ("deepspeed", "numpy", "triton", "xformers")
_SHOWN = 12  # digits of a digest


def installed() -> dict[str, str]:
    """List the versions of Python and of the trainer's dependencies, and a digest of our source."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions | {"sdevid source": _source_digest()}


def _source_digest() -> str:
    digest = hashlib.sha256()
    for package in ("sdevid", "sdevid_kernels"):
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or []:
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:_SHOWN]

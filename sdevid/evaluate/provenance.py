"""Which machine, which versions, which command: what a figure needs beside it."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("sdevid", "torch", "deepspeed", "triton", "numpy", "webdataset")


def machine() -> dict[str, object]:
    """Describe the machine, never by name: processor, cores, memory, accelerators."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_gib": round(memory / 2**30, 1),
        "gpus": gpus,
    }


def one_core() -> str:
    """Describe the machine in a few words, for figures taken on one of its cores."""
    description = machine()
    return f"{description['processor']}, 1 of {description['cores']} cores"


def versions() -> dict[str, str]:
    """List the versions of Python and of the installed packages that a figure depends on."""
    by_package = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            by_package[package] = version(package)
        except PackageNotFoundError:
            continue
    return by_package


def command(name: str) -> str:
    """Format the running command line of `python -m sdevid NAME`, as a user would type it."""
    arguments = sys.argv[1:]
    return shlex.join(["python", "-m", "sdevid", name, *arguments[arguments[:1] == [name] :]])


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"

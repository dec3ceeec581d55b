"""`sdevid doctor`: what this machine has, what it lacks, and what that costs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sdevid import __version__
from sdevid.command_line import command_parser

GIB = 2**30


class Finding(NamedTuple):
    """One thing looked at."""

    name: str
    value: str
    cost: str = ""  # what its absence costs; empty where nothing is missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings as a table that fits a bug report."""
    command_parser("doctor", __doc__ or "", "sdevid doctor > machine.txt").parse_args(arguments)
    findings = list(examine())
    width = max(len(finding.name) for finding in findings) + 2
    for name, value, cost in findings:
        print(f"{name:<{width}}{value}" + (f"\n{'':<{width}}-> {cost}" if cost else ""))
    lacking = sum(bool(finding.cost) for finding in findings)
    print(f"\n{lacking} of {len(findings)} are missing or limited" if lacking else "\nall is here")
    return 0


def examine() -> Iterator[Finding]:
    """Look at software, accelerators, memory, disk and cluster."""
    yield Finding("sdevid", __version__)
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    yield from _packages()
    yield from _accelerators()
    yield from _memory()
    yield from _cluster()


_PACKAGES = {
    "torch": "nothing runs without it",
    "deepspeed": "train needs it",
    "triton": "kernels fall back to their PyTorch reference",
    "xformers": "packed clips of several lengths use masks instead",
    "torchsde": "sde.solver: torchsde/... is refused",
    "webdataset": "shards cannot be written",
    "accelerate": "sample needs it",
    "av": "videos are neither cut nor written",
    "wandb": "metrics.wandb=true is refused",
    "transformers": "text.encoder=FOLDER is refused; pip install 'sdevid[text]'",
    "diffusers": "encoder.frozen takes TAEF2 alone; pip install 'sdevid[autoencoder]'",
    "s3fs": "data=s3://... is refused; pip install 'sdevid[remote]'",
    "gradio": "sdevid studio is refused; pip install 'sdevid[studio]'",
}


def _packages() -> Iterator[Finding]:
    for name, cost in _PACKAGES.items():
        if importlib.util.find_spec(name) is None:
            yield Finding(name, "not installed", cost)
        else:
            yield Finding(name, importlib.metadata.version(name))


def _accelerators() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        why = f"torch is built for {built}, no device answers" if built else "torch is a CPU build"
        yield Finding("GPU", f"none ({why})", "training and sampling run on the CPU")
        return
    yield Finding("CUDA", f"{torch.version.cuda or torch.version.hip}")
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        kind = f"sm_{device.major}{device.minor}, {device.total_memory / GIB:.0f} GiB"
        yield Finding(f"GPU {index}", f"{device.name}, {kind}")
    backends = torch.distributed.is_available() and torch.distributed.is_nccl_available()
    yield Finding("NCCL", "built in" if backends else "no", "" if backends else "one GPU a job")


def _memory() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cores", str(cores))
    pages: Callable[[str], int] = os.sysconf
    yield Finding("memory", f"{pages('SC_PAGE_SIZE') * pages('SC_PHYS_PAGES') / GIB:.1f} GiB")
    for name, path, least in (("disk, here", Path.cwd(), 10.0), ("/dev/shm", Path("/dev/shm"), 1)):
        if not path.is_dir():
            yield Finding(name, "not there", "several GPUs of a node may fail to talk")
            continue
        free = shutil.disk_usage(path).free / GIB
        low = f"under {least:g} GiB: checkpoints or ranks may fail" if free < least else ""
        yield Finding(name, f"{free:.1f} GiB free", low)


def _cluster() -> Iterator[Finding]:
    sbatch = shutil.which("sbatch")
    yield Finding("Slurm", sbatch or "no sbatch", "" if sbatch else "launch/train.sh needs one")
    compiler = shutil.which("cc") or shutil.which("gcc")
    lost = "Triton cannot build its launcher; DeepSpeed's compiled operators are off"
    yield Finding("C compiler", compiler or "none", "" if compiler else lost)

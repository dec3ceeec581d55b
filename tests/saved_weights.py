"""Weights of a checkpoint, read with the checks that a resume makes."""

from __future__ import annotations

from pathlib import Path

import torch

from sdevid import checkpoint


def weights(run_dir: Path, step: int) -> dict[str, torch.Tensor]:
    folder = checkpoint.folder_of(run_dir, step)
    assert not checkpoint.faults(folder, checkpoint.read_manifest(folder))
    return {
        f"{which} {name}": tensor
        for which in ("ema", "raw")
        for name, tensor in checkpoint.read_weights(folder, which).items()
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

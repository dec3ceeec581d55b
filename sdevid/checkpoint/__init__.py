"""What a checkpoint holds, and how it is written, verified, found again and kept.

`checkpoints/step_N/` of a run holds DeepSpeed's files; for each rank R its float32 weights and
their average (`raw-R.safetensors`, `ema-R.safetensors`, laid out by `layout-R.json`) and random
state (`rng-R.safetensors`); `buffers.safetensors`; `config.yaml`; and `manifest.json` with
progress, shapes, sizes and hashes. It is written aside and renamed when every rank has finished.
"""

from __future__ import annotations

from sdevid.checkpoint.comparison import (
    differences,
    first_difference,
)
from sdevid.checkpoint.folders import (
    digest,
    faults,
    files_of,
    folder_of,
    publish,
    remove,
    steps,
    tidy,
)
from sdevid.checkpoint.manifest import (
    FORMAT,
    Manifest,
    Progress,
    read_manifest,
    signed,
)
from sdevid.checkpoint.weights import (
    ParameterShard,
    Slice,
    Weights,
    random_state,
    read_rank,
    read_slices,
    read_weights,
    write_rank,
)

__all__ = [
    "FORMAT",
    "Manifest",
    "ParameterShard",
    "Progress",
    "Slice",
    "Weights",
    "differences",
    "digest",
    "faults",
    "files_of",
    "first_difference",
    "folder_of",
    "publish",
    "random_state",
    "read_manifest",
    "read_rank",
    "read_slices",
    "read_weights",
    "remove",
    "signed",
    "steps",
    "tidy",
    "write_rank",
]

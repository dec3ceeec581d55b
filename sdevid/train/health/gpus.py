"""What nvidia-smi says of this node's GPUs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

_SECONDS = 60  # it hangs where a GPU has fallen off the bus
_QUERIES = {
    "gpu": (
        "ecc.errors.uncorrected.volatile.total",
        "uncorrected ECC errors since its driver was loaded",
    ),
    "remapped-rows": ("remapped_rows.failure", "rows of memory that could not be remapped"),
}


def ecc_faults() -> list[str]:
    """List each GPU whose memory has failed; none where there is no nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return []
    faults: list[str] = []
    for table, (column, what) in _QUERIES.items():
        command = ["nvidia-smi", f"--query-{table}=gpu_bus_id,{column}", "--format=csv,noheader"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return [f"nvidia-smi did not answer within {_SECONDS} s"]
        if done.returncode == 0:
            faults += read_counts(done.stdout, what)
        elif table == "gpu":  # older drivers have no table of remapped rows
            faults.append(f"nvidia-smi failed: {done.stdout.strip() or done.stderr.strip()}")
    return faults


def read_counts(table: str, what: str) -> Iterator[str]:
    """Yield a fault for each line `bus id, count` with a count above 0; [N/A] counts as none."""
    for line in table.splitlines():
        gpu, _, count = (part.strip() for part in line.partition(","))
        if count.isdigit() and int(count) > 0:
            yield f"GPU {gpu} has {count} {what}"

"""`check_shards` and `sdevid shards check`: verify shards against their index."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor

from sdevid.command_line import command_parser
from sdevid.data.cut.verify import ShardReport, check_shard, folder_faults
from sdevid.data.open import open_folder
from sdevid.data.shards import read_dataset
from sdevid.display import Display
from sdevid.errors import UserError

DESCRIPTION = "Verify offsets, sizes, sha256 and fields of every clip, and that it decodes."
_SHOWN = 100  # faults printed


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns 0, 1 if something is damaged, 2 if the folder holds no shards."""
    parser = command_parser("check-shards", DESCRIPTION, "sdevid check-shards data/mine")
    parser.add_argument("folder", help="a path or URL")
    parser.add_argument("--no_decode", action="store_true", help="read and compare bytes alone")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    parser.add_output_arguments()
    options = parser.parse_args(arguments)
    try:
        folder = open_folder(options.folder)
        dataset = read_dataset(folder)
    except (UserError, OSError) as error:
        print(f"check_shards: {error}", file=sys.stderr)
        return 2
    shards = [shard for split in dataset["splits"].values() for shard in split["shards"]]
    reports = _check(options.folder, shards, not options.no_decode, options.workers)
    faults = list(folder_faults(folder, dataset))
    faults += [fault for report in reports for fault in report.faults]
    for fault in faults[:_SHOWN]:
        print(fault)
    if len(faults) > _SHOWN:
        print(f"... and {len(faults) - _SHOWN} more")
    clips = sum(report.clips for report in reports)
    result = f"{len(faults)} faults" if faults else "all as the index says"
    print(f"{options.folder}: {len(shards)} shards, {clips} clips: {result}")
    return 1 if faults else 0


def _check(folder: str, shards: Sequence[str], decoding: bool, workers: int) -> list[ShardReport]:
    arguments = [folder] * len(shards), shards, [decoding] * len(shards)
    if workers < 2:
        return _counted(map(check_shard, *arguments), len(shards))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        return _counted(pool.map(check_shard, *arguments), len(shards))


def _counted(reports: Iterable[ShardReport], total: int) -> list[ShardReport]:
    counts = []
    with Display(total, "shards", title="checking") as display:
        for report in reports:
            counts.append(report)
            display.advance(1)
    return counts

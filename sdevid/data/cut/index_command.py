"""`sdevid shards index`: write indices for WebDataset tars of any maker."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sdevid import clock
from sdevid.command_line import command_parser
from sdevid.data.cut.index_tars import index_tars
from sdevid.errors import UserError

_SHOWN = 20  # samples that are left out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns 0, or 2 for what the user can mend."""
    parser = command_parser(
        "shards index",
        "Index WebDataset tars whose videos have one size, so that data= reads them.",
        "sdevid shards index 'tars/{000..099}.tar' --output_dir data/indexed",
    )
    parser.add_argument("location", help="folder of tars, or their list as a/{000..099}.tar")
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="of the index (default: beside the tars; of a URL: a cache)",
    )
    clock.add_arguments(parser, None, "of npy whose json states none")
    parser.add_output_arguments()
    try:
        options = parser.parse_args(arguments)
        result = index_tars(options.location, options.output_dir, options.fps)
    except (UserError, OSError) as error:
        print(f"shards index: {error}", file=sys.stderr)
        return 2
    print(f"{options.location}: {result.clips} clips, {len(result.left_out)} samples left out")
    if "://" in options.location:
        print(f"  the index is in {result.folder}; data={options.location} reads by it")
    for name, reason in result.left_out[:_SHOWN]:
        print(f"  {name} {reason}")
    return 0

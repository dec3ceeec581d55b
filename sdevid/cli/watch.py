"""`sdevid watch`: serve the pages of runs while they train."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from sdevid.command_line import command_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted. Raises UserError where there is no run or no free port."""
    parser = command_parser(
        "watch",
        "Serve the page of a run, or of every run in a folder, refreshed while training goes on.\n"
        "Beyond loopback the address carries a token.",
        "sdevid watch runs",
    )
    parser.add_argument("folder", type=Path, help="a run, or a folder of runs")
    parser.add_address_arguments(8642)
    options = parser.parse_args(arguments)
    from sdevid.report.watch import Watch

    interrupted = contextlib.suppress(KeyboardInterrupt)
    with Watch(options.folder, options.host, options.port) as server, interrupted:
        print(f"{server.address} (Ctrl-C ends it)", flush=True)
        server.serve_forever()
    return 0

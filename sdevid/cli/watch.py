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
        "Serve the page of a run, or of every run in a folder, refreshed while training goes on.",
        "sdevid watch runs",
    )
    parser.add_argument("folder", type=Path, help="a run, or a folder of runs")
    parser.add_argument("--port", type=int, default=8642, help="to listen on; 0: any free one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; but for loopback a token is made"
    )
    options = parser.parse_args(arguments)
    from sdevid.report.watch import Watch

    with Watch(options.folder, options.host, options.port) as server:
        print(f"{server.address} (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0

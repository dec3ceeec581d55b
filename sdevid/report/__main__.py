"""Write the page of a run: RUN_DIR/report.html."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sdevid.command_line import command_parser, guarded
from sdevid.report import page


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `report`, and tell a user's mistake without a traceback. Returns the exit code."""
    parser = command_parser(
        "report",
        "Write the page of a run, or of several beside each other: one file that works offline.",
        "sdevid report runs/mine\nsdevid report runs/mine runs/other --output both.html",
    )
    page.add_arguments(parser)
    options = parser.parse_args(arguments)
    return guarded("report", lambda: page.write_page(options))


if __name__ == "__main__":
    sys.exit(main())

"""`sdevid studio`: try a model in the browser."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from sdevid.command_line import command_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page on loopback until interrupted."""
    parser = command_parser(
        "studio",
        "Try a model in the browser: frames or a prompt in, several futures side by side out.",
        "sdevid studio runs/mine",
    )
    parser.add_argument("model_path", type=Path, help="run, checkpoint or exported folder")
    parser.add_address_arguments(7860)
    options = parser.parse_args(arguments)
    from sdevid.report import studio

    with contextlib.suppress(KeyboardInterrupt):  # also before Gradio listens for it
        studio.launch(options.model_path, options.host, options.port)
    return 0

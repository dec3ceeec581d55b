"""Measure a trained model on held-out clips."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sdevid.errors import UserError
from sdevid.evaluate import evaluation


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `evaluate`, and tell a user's mistake without a traceback. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sdevid evaluate", description=__doc__)
    evaluation.add_arguments(parser)
    try:
        return evaluation.run(parser.parse_args(arguments))
    except UserError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

"""`accelerate launch -m sdevid.sample`, or `python -m sdevid sample` for one process.

On a CPU a process uses one core; start several for more. The videos stay the same.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from sdevid.errors import UserError
from sdevid.sample import sampler


def main(arguments: Sequence[str] | None = None) -> int:
    """Sample, and tell a user's mistake once and without a traceback. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sdevid sample", description=__doc__)
    sampler.add_arguments(parser)
    try:
        return sampler.run(parser.parse_args(arguments))
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"sample: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

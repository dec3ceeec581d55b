"""torchrun with the exit code of the trainer: `python -m sdevid.train.torchrun ARGUMENTS`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from sdevid.exit_code import ExitCode

_FIRST = (ExitCode.LOST, ExitCode.USER, ExitCode.RESUMABLE)  # what ranks agree on, or one knows


def main(arguments: Sequence[str]) -> int:
    """Launch as torchrun does; return the code that this node's processes ended with.

    torchrun itself ends with 1 whatever they end with, after a signal too. After a signal that it
    passed on the code is RESUMABLE: the trainer saves and stops.
    """
    from torch.distributed import run as launcher
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        launch: Any = launcher
        launch.run(launch.parse_args(list(arguments)))
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        return next((code for code in _FIRST if code in codes), ExitCode.FAILED)
    except SignalException:
        return ExitCode.RESUMABLE
    return ExitCode.FINISHED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

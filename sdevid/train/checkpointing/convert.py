"""DeepSpeed's converter to its universal layout, reading its input as data only.

python -m sdevid.train.checkpointing.convert [--trust] ARGUMENTS-OF-ds_to_universal
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence

from sdevid.errors import UserError
from sdevid.train.checkpointing.data_only import data_only


def main(arguments: Sequence[str]) -> int:
    """Convert by DeepSpeed's tool; return 2, after a message, where a file holds more than data."""
    from deepspeed.checkpoint import ds_to_universal

    trusted = "--trust" in arguments
    multiprocessing.set_start_method("fork")  # its workers inherit the restricted reader
    sys.argv = ["ds_to_universal", *(a for a in arguments if a != "--trust")]
    options = ds_to_universal.parse_arguments()
    try:
        with data_only(trusted=trusted):
            ds_to_universal.main(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Cut videos, or draw them, into WebDataset shards: `python tools/make_shards.py --help`."""

import sys

from sdevid.cli.shards import main

if __name__ == "__main__":
    sys.exit(main())

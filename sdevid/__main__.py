"""`python -m sdevid COMMAND`, the same as the installed command `sdevid`."""

import sys

from sdevid.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

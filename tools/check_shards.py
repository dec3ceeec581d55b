"""Verify shards against their index: `python tools/check_shards.py FOLDER`."""

from __future__ import annotations

import sys

from sdevid.data.cut.check_command import main

if __name__ == "__main__":
    sys.exit(main())

"""Settings with which x264 gives the same bytes for the same pictures.

It gives others now and then with B-frames (it reads memory that it has not written), with its
AVX-512 code on a busy machine, and with several threads: measured, and none happens with these.
"""

from __future__ import annotations

import platform

SAME_BYTES = {"threads": "1", "bf": "0"}
if platform.machine().lower() in ("x86_64", "amd64"):
    SAME_BYTES["x264-params"] = "asm=SSE2"

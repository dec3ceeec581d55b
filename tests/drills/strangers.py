"""What drills take from outside: shards over HTTP, and payloads of clips that mean harm."""

from __future__ import annotations

import functools
import pickle
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SDP = (
    b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    b"m=video 45678 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)


class _Touch:
    """Pickled, it makes a file of this name when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self._mark)!r}, 'w').close()",)


def hostile_payloads(mark: Path) -> list[tuple[str, bytes]]:
    """Extension and bytes of clips; a reader that trusts the first makes the file `mark`."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1048576, 1024, 1024, 1), }"
    huge = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    return [("npy", pickle.dumps(_Touch(mark))), ("npy", huge), ("mp4", SDP)]


class _Ranges(SimpleHTTPRequestHandler):
    """Files of a folder, whole or by ranges of bytes."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        self.send_response(206 if asked else 200)
        if asked:
            first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            content = content[first : last + 1]
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback; yields its URL."""
    handler = functools.partial(_Ranges, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()

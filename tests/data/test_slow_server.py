"""A web server that never ends, or drips, is left with a sentence and little memory."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sdevid.data import remote
from sdevid.data.folder import Access
from sdevid.data.open import open_folder
from sdevid.data.shards import read_dataset
from sdevid.errors import UserError


class Hostile(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with suppress(OSError):
            getattr(self, self.path.split("/")[1])()
        self.close_connection = True

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b" " * 2**20)

    def bomb(self) -> None:
        content = gzip.compress(bytes(2**28), 1)
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        while True:
            self.wfile.write(b" ")
            time.sleep(0.05)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", ["endless", "bomb"])
def test_answer_without_end_is_cut_at_its_limit(url, kind):
    with pytest.raises(UserError, match=r"dataset\.json is not read as JSON: .* more than"):
        read_dataset(open_folder(f"{url}/{kind}"))


@pytest.mark.parametrize("kind", ["endless", "bomb"])
def test_more_than_was_asked_for_is_not_kept(url, kind):
    with pytest.raises(UserError, match="does not answer range requests"):
        open_folder(f"{url}/{kind}").read("a.tar", 0, 1_000)


def test_server_that_drips_is_left(url, monkeypatch):
    monkeypatch.setattr(remote, "_TRIES", 1)
    with pytest.raises(
        UserError, match=r"could not be read .*ConnectionError: only \d+ bytes came"
    ):
        open_folder(f"{url}/drip", Access(timeout=0.3)).read("a.tar", 0, 1_000)

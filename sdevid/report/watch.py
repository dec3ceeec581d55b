"""Serve the pages of runs on loopback, made anew whenever a run's files change.

Only the pages are served: a path of a request chooses among the runs found below one folder and
never reaches the file system.
"""

from __future__ import annotations

import hmac
import html
import ipaddress
import secrets
import sys
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from sdevid.errors import UserError
from sdevid.report import samples
from sdevid.report.document import document
from sdevid.report.history import warnings
from sdevid.report.page import page
from sdevid.report.record import Record, read
from sdevid.report.words import duration, number

FILES = ("config.yaml", "metrics.jsonl", "starts.jsonl", "results.json", "results.npz", "exit.json")
DEEPEST = 4  # folders below the one that is watched
COLUMNS = ("run", "clips", "last loss", "trained for", "ending", "warnings")


class Watch(ThreadingHTTPServer):
    """The server; `address` is the URL to open, with its token where one is needed."""

    daemon_threads = True

    def __init__(self, folder: Path, host: str, port: int) -> None:
        """Listen on `host` and `port` (0: any free one).

        Raises UserError where `folder` holds no run, or the port is taken.
        """
        self.folder = folder
        if not list(self.runs()):
            raise UserError(
                f"{folder} holds no run (a folder with config.yaml or metrics.jsonl); give a "
                "run_dir, or a folder of them"
            )
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise UserError(
                f"port {port} on {host} cannot be listened on ({error.strerror}); give another by "
                "--port, or 0 for any free one"
            ) from error
        self.token = None if _is_loopback(host) else secrets.token_urlsafe(24)

    @property
    def address(self) -> str:
        """URL of the index."""
        host, port = self.server_address[:2]
        query = f"?token={self.token}" if self.token else ""
        return f"http://{host!s}:{port}/{query}"

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Report in one line why an answer failed: the visitor left, or the run was removed."""
        print(f"watch: {sys.exc_info()[1]}", file=sys.stderr, flush=True)

    def runs(self) -> Iterator[tuple[str, Path]]:
        """List name and folder of each run: the folder itself, or those below it."""
        if _is_run(self.folder):
            yield self.folder.resolve().name, self.folder
            return
        for path in sorted(_below(self.folder, DEEPEST)):
            yield str(path.relative_to(self.folder)), path


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        inside = list(folder.iterdir()) if folder.is_dir() else []
    except OSError:  # not ours to read, or gone by now
        return
    for path in inside:
        if path.is_symlink() or not path.is_dir():
            continue
        if _is_run(path):
            yield path
        elif depth > 1:
            yield from _below(path, depth - 1)


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.yaml", "metrics.jsonl"))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def stamp(folder: Path) -> str:
    """Build a text that changes when a file of the run does."""
    parts = []
    for name in FILES:
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        parts.append(f"{name}:{status.st_size}:{status.st_mtime_ns}")
    parts += [path.name for path in samples.files(folder)]
    return "|".join(parts)


def index(runs: dict[str, Path], query: str) -> str:
    """Build the page of all runs, sortable by each column."""
    rows = "".join(_row(name, folder, query) for name, folder in runs.items())
    head = "".join(f'<th data-sort scope="col">{column}</th>' for column in COLUMNS)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    title = f"{len(runs)} runs"
    return document(
        title, f"<h1>{title}</h1>", [f'<div class="scroll">{table}</div>'], refreshed=True
    )


def _row(name: str, folder: Path, query: str) -> str:
    link = f'<a href="/run/{quote(name)}/{html.escape(query)}">{html.escape(name)}</a>'
    try:
        record = read(folder)
    except UserError as error:
        return f'<tr><td>{link}</td><td colspan="5">{html.escape(str(error))}</td></tr>'
    loss, spent = (record.metrics[-1].get("loss") if record.metrics else None), record.seconds
    ending = str((record.ending or {}).get("reason", "not ended"))
    cells = [
        (record.clips, f"{record.clips:,}"),
        (loss, number(loss, 4)),
        (spent, duration(spent) if spent else ""),
        (ending, html.escape(ending)),
        (_warned(record), _warned(record)),
    ]
    shown = "".join(f'<td data-value="{html.escape(str(key))}">{text}</td>' for key, text in cells)
    return f"<tr><td>{link}</td>{shown}</tr>"


def _warned(record: Record) -> str:
    answer = ["yes"] if warnings(record) else []
    return ", ".join([*answer, *(["not measured"] if record.results is None else [])])


class _Handler(BaseHTTPRequestHandler):
    server: Watch

    def do_GET(self) -> None:
        """Answer with the index, a run's page, or the stamp by which either is refreshed."""
        asked = urlsplit(self.path)
        if not self._admitted(parse_qs(asked.query)):
            self._send(HTTPStatus.FORBIDDEN, "a token is needed: open the address that was printed")
            return
        runs = dict(self.server.runs())
        query = f"?{asked.query}" if asked.query else ""
        path, wants_stamp = asked.path, asked.path.endswith("/stamp")
        name = unquote(path.removesuffix("stamp").removeprefix("/run/").rstrip("/"))
        if path in ("/", "/stamp"):
            text = "".join(map(stamp, runs.values())) if wants_stamp else index(runs, query)
        elif name in runs and path.startswith("/run/"):
            text = stamp(runs[name]) if wants_stamp else self._page(runs[name])
        else:
            self._send(HTTPStatus.NOT_FOUND, "no such run")
            return
        self._send(HTTPStatus.OK, text, "text/plain" if wants_stamp else "text/html")

    def _page(self, folder: Path) -> str:
        try:
            return page(read(folder), refreshed=True)
        except UserError as error:
            return document(folder.name, "", [f"<p>{html.escape(str(error))}</p>"], refreshed=True)

    def _admitted(self, query: dict[str, list[str]]) -> bool:
        token = self.server.token
        return token is None or hmac.compare_digest(token, query.get("token", [""])[0])

    def _send(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing for each request."""

"""Tiny videos whose frames say which they are, and a web server of shards."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pytest

from sdevid.data.spec import CutSpec

MakeVideo = Callable[..., Path]
FFmpeg = Callable[..., None]
MakeSpec = Callable[..., CutSpec]


def level(frame: int) -> int:
    """The grey level that marks a frame."""
    return 20 + 6 * frame


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """Write a video in which frame i is flat grey of `level(i)`, or the given images."""

    def make(
        name: str = "video.mp4",
        codec: str = "libx264",
        *,
        frames: int = 30,
        rate: Fraction | int = 15,
        pix_fmt: str = "yuv420p",
        size: tuple[int, int] = (64, 48),
        times: Sequence[int] | None = None,
        images: Sequence[np.ndarray] | None = None,
        aspect: Fraction | None = None,
        options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if images is None:
            images = [np.full((size[1], size[0], 3), level(i), np.uint8) for i in range(frames)]
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate, options=options or {})
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt = pix_fmt
            stream.codec_context.thread_count = 1
            if aspect is not None:
                stream.sample_aspect_ratio = aspect
            if times is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for i, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = i if times is None else times[i]
                frame.time_base = 1 / Fraction(rate) if times is None else Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make


@pytest.fixture
def ffmpeg() -> FFmpeg:
    """Run FFmpeg, the binary of the wheel imageio-ffmpeg."""
    binary = imageio_ffmpeg.get_ffmpeg_exe()

    def run(*arguments: object) -> None:
        command = [binary, "-v", "error", "-y", *map(str, arguments)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return run


@pytest.fixture
def make_spec() -> MakeSpec:
    """A cut of 16-pixel frames at 15 a second, with what is given instead."""

    def make(**changes: object) -> CutSpec:
        settings: dict[str, object] = {
            "frame_size": 16,
            "fps": 15.0,
            "clip_length": 8,
            "clip_stride": 8,
            "fit": "crop",
            "store": "npy",
        }
        return CutSpec(**(settings | changes))  # type: ignore[arg-type]

    return make


class RangeServer(ThreadingHTTPServer):
    """A web server that gives parts of files, counts what it is asked, and fails as it is told.

    Serves the files of `folder`; `faults` are what happens to the next requests for a file.

    A fault is a status, or "hang" (no answer for a second), "break" (the connection ends within
    the answer), "whole" (the range is not heeded).
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.faults: dict[str, list[int | str]] = defaultdict(list)
        self.asked: Counter[tuple[str, str]] = Counter()  # name and range
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        name, wanted = self.path.rpartition("/")[2], self.headers.get("Range", "")
        with self.server.lock:
            if body:
                self.server.asked[name, wanted] += 1
            faults = self.server.faults[name]
            fault = faults.pop(0) if faults else None
        path = self.server.folder / name
        if fault == "hang":
            time.sleep(1)
        if isinstance(fault, int) or not path.is_file():
            return self._send(fault if isinstance(fault, int) else 404, b"", 0)
        content = path.read_bytes()
        result = None if fault == "whole" else re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)
        status, part = 200, content
        if result:
            first, last = (int(place) for place in result.groups())
            if first >= len(content):
                return self._send(416, b"", 0)
            status, part = 206, content[first : last + 1]
        sent = part[: len(part) // 2] if fault == "break" else part
        return self._send(status, sent if body else b"", len(part))

    def _send(self, status: int, sent: bytes, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):  # the client has left
            self.wfile.write(sent)
        if len(sent) < length:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[RangeServer]:
    """A server, on a free port, of the folder `served`, which is made."""
    (tmp_path / "served").mkdir()
    server = RangeServer(tmp_path / "served")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()

"""A file that names other files or hosts is refused before it is read."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from sdevid.data.decode import cut_video
from sdevid.data.payload import decode, encode
from sdevid.data.spec import BadVideoError
from sdevid.data.video.open import open_payload, open_video


@pytest.fixture
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """A port of this host, and what is sent to it."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                requests.append(connection.recv(100))
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], requests


def texts(port: int, private: Path) -> dict[str, str]:
    url, begin = f"http://127.0.0.1:{port}", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n"
    mpd = '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    adaptation = '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1">'
    return {
        "hls": f"{begin}{url}/a.ts\n#EXT-X-ENDLIST\n",
        "hls of a file": f"{begin}{private}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile '{private}'\n",
        "ffconcat relative": "ffconcat version 1.0\nfile private.mp4\n",
        "ffconcat of a host": f"ffconcat version 1.0\nfile '{url}/c.mp4'\n",
        "dash": f"{mpd}{adaptation}<BaseURL>{url}/d.mp4</BaseURL></Representation></AdaptationSet>"
        "</Period></MPD>",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 45678 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "asx": f'<asx version="3.0"><entry><ref href="{url}/a"/></entry></asx>',
        "rtsp": f"rtsp://127.0.0.1:{port}/x",
        "reference": f"[Reference]\r\nRef1={url}/r\r\n",
        "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/'
        '2067-3/2016"></CompositionPlaylist>',
    }


NAMES = sorted(texts(0, Path()))


@pytest.mark.parametrize("name", NAMES)
def test_opening_a_video_opens_no_other_file_or_address(
    tmp_path, monkeypatch, make_spec, listener, name
):
    monkeypatch.chdir(tmp_path)
    port, requests = listener
    shape = (8, 16, 16, 3)
    private = tmp_path / "private.mp4"
    private.write_bytes(encode("mp4", np.full(shape, 77, np.uint8), 8.0))
    text = texts(port, private)[name]
    stranger = tmp_path / "stranger.mp4"
    stranger.write_text(text)
    with pytest.raises(ValueError, match="payload does not decode"):
        decode("mp4", text.encode(), shape)
    with pytest.raises(av.FFmpegError):
        open_payload(text.encode())
    with pytest.raises(BadVideoError, match="does not decode"):
        list(cut_video(stranger, make_spec()))
    with pytest.raises(av.FFmpegError):
        open_video(stranger)
    assert not requests
    assert "B26E" not in Path("/proc/net/udp").read_text(encoding="utf-8"), (
        "the port 45678 of the SDP"
    )


def test_payload_of_another_format_is_refused(make_video):
    with pytest.raises(av.FFmpegError):
        open_payload(make_video("a.mkv").read_bytes())


def test_name_that_is_no_utf_8_and_one_like_a_url_are_files(make_video, tmp_path, make_spec):
    video = make_video()
    for name in (b"bad\xff.mp4", b"http:x.mp4", b"pipe:0.mp4", b"concat:a.mp4|b.mp4", b"%03d.mp4"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.write_bytes(video.read_bytes())
        assert list(cut_video(path, make_spec()))


def test_pipe_is_not_waited_for(tmp_path, make_spec):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(BadVideoError, match="not a regular file"):
        list(cut_video(tmp_path / "pipe.mp4", make_spec()))

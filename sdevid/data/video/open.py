"""Opens media files with PyAV such that nothing in them opens another file or a socket.

FFmpeg recognises a file by its content, and among what it recognises are playlists (HLS, DASH,
ffconcat) and session descriptions (SDP) that name other files and hosts. The formats below hold
their pictures themselves; any other is refused before its header is read.
"""

from __future__ import annotations

import io
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

# FFmpeg's names of the formats that are read: containers, elementary streams, animations.
_CONTAINERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "mxf", "gif", "nut", "ivf"),
    *("yuv4mpegpipe", "h264", "hevc", "vvc", "av1", "obu", "mjpeg", "mpegvideo", "m4v", "vc1"),
    *("dv", "rm", "wtv", "gxf", "apng", "webp", "webp_pipe", "swf", "vob", "live_flv"),
)
STILL = ("image2", "_pipe")  # endings of the names of FFmpeg's readers of still images
_STILLS = (
    *("png_pipe", "jpeg_pipe", "bmp_pipe", "tiff_pipe", "ppm_pipe", "pgm_pipe", "gif_pipe"),
    *("jpegls_pipe", "pam_pipe", "sgi_pipe", "dpx_pipe", "exr_pipe", "psd_pipe", "qoi_pipe"),
)
_BY_NAME = {".mjpeg": "mjpeg", ".mjpg": "mjpeg"}  # by their content, these are one picture
_MOST_PIXELS = 2**26  # of a frame; 8,192 x 8,192


def open_video(path: Path) -> InputContainer:
    """Open a regular file that holds video or a still image.

    Raises av.FFmpegError where it is missing, of no known format, or one that names other files.
    """
    if path.exists() and not path.is_file():
        raise av.InvalidDataError(1, "is not a regular file", str(path))
    allowed = ",".join(_CONTAINERS + _STILLS)
    kind = _BY_NAME.get(path.suffix.lower())
    return _open(f"file:{path}", kind, {"format_whitelist": allowed, "protocol_whitelist": "file"})


def open_payload(payload: bytes, container: str = "mp4") -> InputContainer:
    """Open the bytes of a file of this FFmpeg format. Raises av.FFmpegError where they are not."""
    return _open(io.BytesIO(payload), container, {"protocol_whitelist": "none"})


def start_decoder(stream: VideoStream) -> None:
    """Prepare the decoder of `stream`: one thread, and no frame of an absurd size.

    Raises av.FFmpegError where no decoder knows the stream's codec.
    """
    if stream.codec_context is None:
        raise av.InvalidDataError(1, "has a stream of an unknown codec", "")
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(_MOST_PIXELS)}


def _open(file: str | io.BytesIO, kind: str | None, options: dict[str, str]) -> InputContainer:
    return av.open(file, "r", format=kind, container_options=options, metadata_errors="replace")

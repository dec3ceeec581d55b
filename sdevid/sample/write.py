"""Writes video: mp4 and npz for machines, GIF and contact sheets for eyes.

Videos are uint8 (time, height, width, channels) with 1 or 3 channels. The same video gives the
same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdevid.clock import rational
from sdevid.data.x264 import SAME_BYTES

Pixels = NDArray[np.uint8]
Frames = NDArray[Any]  # uint8 pixels, or a model's float32 values, 0 black and 1 white

GIF_RATE = 50.0  # frames a second; browsers slow a GIF down that asks for more
LONGEST_DELAY = 655_350  # ms that a GIF can show a frame: 16 bits of hundredths
GAP = 2  # pixels between the tiles of a grid
GROUND = 128  # grey between the tiles
CHEQUER = (96, 160)  # greys of what was not observed


def mp4(path: Path, video: Pixels, fps: float) -> None:
    """Write H.264, 4:2:0, at the video's own size; an odd side is lengthened by its last line."""
    import av

    height, width = video.shape[1:3]
    even = np.pad(video, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    layout = "gray" if video.shape[3] == 1 else "rgb24"
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        rate = rational(fps)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "12", **SAME_BYTES})
        stream.width, stream.height = even.shape[2], even.shape[1]
        stream.pix_fmt = "yuv420p"
        for frame in even:
            pixels = np.ascontiguousarray(frame[..., 0] if layout == "gray" else frame)
            drawn = av.VideoFrame.from_ndarray(pixels, format=layout)
            # converted here: left to encode, one video in 300 came out with other bytes
            container.mux(stream.encode(drawn.reformat(format="yuv420p")))
        container.mux(stream.encode())


def gif(path: Path | BinaryIO, video: Pixels, fps: float) -> None:
    """Write an endless GIF. Above 50 frames a second frames are left out."""
    stride = max(1, int(np.ceil(fps / GIF_RATE)))
    frames, durations = _joined(video[::stride], fps / stride)
    pictures = [picture(frame) for frame in frames]
    pictures[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=durations,
        loop=0,
        disposal=1,
    )


def _joined(video: Pixels, fps: float) -> tuple[list[Pixels], list[int]]:
    """Join equal neighbouring frames; give how long each is shown, in ms.

    Pillow would join them too, and a sum past the GIF's 16 bits of hundredths is an error there:
    here it is clipped to the longest that a GIF can show.
    """
    frames: list[Pixels] = []
    durations: list[int] = []
    for frame, duration in zip(video, _durations(len(video), fps), strict=True):
        if frames and np.array_equal(frames[-1], frame):
            durations[-1] = min(durations[-1] + duration, LONGEST_DELAY)
        else:
            frames.append(frame)
            durations.append(duration)
    return frames, durations


def _durations(count: int, fps: float) -> list[int]:
    """Compute each frame's ms in the GIF's whole hundredths, exact in the sum, not each alone."""
    gap = min(100 / fps, LONGEST_DELAY / 10)
    ends = np.round(np.arange(count + 1) * gap).astype(np.int64)
    return [int(step) * 10 for step in np.diff(ends)]


def npz(
    path: Path,
    video: Frames,
    ticks: NDArray[np.int64],
    observed: int,
    observed_indices: Sequence[int] | None = None,
) -> None:
    """Write the video with the ticks (1/76,800 s) of its frames; the first `observed` were given.

    `observed_indices` are all frames that were given, where they are not only the first.
    """
    indices = np.asarray(
        range(observed) if observed_indices is None else observed_indices, np.int64
    )
    np.savez_compressed(path, video=video, ticks=ticks, observed=np.int64(observed), places=indices)


def as_uint8(video: Frames) -> Pixels:
    """Convert to pixels: a model's values beyond [0, 1] are clipped, NaN is black."""
    if video.dtype == np.uint8:
        return video
    pixels: Pixels = (np.nan_to_num(video).clip(0, 1) * 255).round().astype(np.uint8)
    return pixels


def shown(video: Frames) -> Pixels:
    """Convert to pixels for the eye: what was not observed is a chequered ground of two greys."""
    pixels = as_uint8(video)
    if video.dtype == np.uint8 or not (absent := np.isnan(video)).any():
        return pixels
    rows, columns = np.ogrid[: video.shape[-3], : video.shape[-2]]
    dark, light = CHEQUER
    ground = np.where((rows // 2 + columns // 2) % 2, light, dark).astype(np.uint8)[..., None]
    marked: Pixels = np.where(absent, ground, pixels)
    return marked


def for_the_eye(video: Pixels, colormap: str | None) -> Pixels:
    """Reduce to one channel or three: of other numbers the first, in `colormap` if named."""
    channels = video if video.shape[-1] in (1, 3) else video[..., :1]
    if colormap is None or channels.shape[-1] == 3:
        return channels
    from matplotlib import colormaps

    table = (colormaps[colormap](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    coloured: Pixels = table[channels[..., 0]]
    return coloured


def picture(frame: Pixels) -> Image.Image:
    """Convert a frame (height, width, channels) to a Pillow image."""
    return Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame)


def enlarge(video: Pixels, side: int) -> Pixels:
    """Enlarge (..., height, width, channels) by a whole factor, so that no side is below `side`.

    Height and width are repeated pixel by pixel.
    """
    factor = max(1, -(-side // min(video.shape[-3:-1])))
    return video.repeat(factor, axis=-3).repeat(factor, axis=-2)


def tile(videos: Pixels, columns: int) -> Pixels:
    """Tile videos (number, time, height, width, channels) side by side, `columns` in a row."""
    number, time, height, width, channels = videos.shape
    rows = -(-number // columns)
    sheet = np.full(
        (time, rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels),
        GROUND,
        np.uint8,
    )
    for i, video in enumerate(videos):
        top, left = (i // columns) * (height + GAP), (i % columns) * (width + GAP)
        sheet[:, top : top + height, left : left + width] = video
    return sheet


def contact_sheet(videos: Pixels, columns: int) -> Pixels:
    """Tile `columns` frames of each video, evenly from first to last, a row a video."""
    number, time = videos.shape[:2]
    shown = np.unique(np.linspace(0, time - 1, min(columns, time)).round().astype(int))
    cells = videos[:, shown].reshape(number * len(shown), 1, *videos.shape[2:])
    sheet: Pixels = tile(cells, len(shown))[0]
    return sheet

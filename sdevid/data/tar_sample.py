"""Decodes a sample of a WebDataset tar: one video, and what is said of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdevid.config import Config
from sdevid.data.mask import MASK
from sdevid.data.npy import read_npy
from sdevid.data.payload import CONTAINERS, ClipVideo, images
from sdevid.data.schema import METADATA, MOST_TEXT, parse_metadata

FAULT = "__fault__"  # in place of members: why there are none
_VIDEO = ("npy", *CONTAINERS)
_MOST_VIDEO = 2**30  # bytes of a decoded video


def decode_sample(sample: dict[str, Any], config: Config) -> tuple[ClipVideo, dict[str, Any]]:
    """Decode a sample to its frames and metadata, `fps` among them.

    Raises ValueError, BadVideoError, LeftOutError or av.FFmpegError where it holds no video.
    """
    if FAULT in sample:
        raise ValueError(sample[FAULT])
    videos = [name for name in sample if name in _VIDEO]
    if len(videos) != 1:
        raise ValueError(f"holds {len(videos)} videos, not one of {', '.join(_VIDEO)}")
    if MASK in sample:
        raise ValueError(
            "has a mask of what was not observed, which a stream without an index does not read; "
            "give the folder with its dataset.json, and no data_reader"
        )
    metadata = {name: sample[name] for name in METADATA if name in sample}
    if any(len(metadata[name]) > MOST_TEXT for name in ("txt", "cls") if name in metadata):
        raise ValueError(f"its txt or cls has more than {MOST_TEXT:,} bytes")
    meta = parse_metadata(metadata)
    if videos[0] == "npy":
        try:
            video = read_npy(sample["npy"])
        except ValueError as error:
            raise ValueError(f"its npy does not read: {error}") from error
        if video.ndim != 4 or video.dtype != np.uint8:
            shape = f"{video.dtype} {video.shape}"
            raise ValueError(
                f"its npy holds {shape}, not uint8 (time, height, width, channels); sdevid shards "
                "cuts arrays of other types, with a transform and an index"
            )
        fps = config.fps if meta.get("fps") is None else meta["fps"]
        if isinstance(fps, bool) or not isinstance(fps, int | float) or fps <= 0:
            raise ValueError(f"its json has fps {fps!r}, not a number above 0")
        return video, meta | {"fps": float(fps)}
    video, fps = _film(videos[0], sample[videos[0]], 1 if config.channels == 1 else 3)
    return video, meta | {"fps": fps}


def _film(extension: str, content: bytes, channels: int) -> tuple[ClipVideo, float]:
    """Decode a video and its rate. ValueError where it is too long, or its frames change size."""
    from sdevid.data.video.inspect import inspect
    from sdevid.data.video.open import open_payload

    with open_payload(content, CONTAINERS[extension]) as container:
        rate = round(float(1 / inspect(container).period), 6)
    frames, held = [], 0
    for image in images(extension, content, channels):
        frames.append(image)
        held += image.nbytes
        if held > _MOST_VIDEO or image.shape != frames[0].shape:
            raise ValueError("is longer than a clip may be, or its frames change size; cut it")
    if not frames:
        raise ValueError("holds no frame")
    return np.stack(frames), rate

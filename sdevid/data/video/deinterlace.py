"""Interlaced frames made whole by FFmpeg's bwdif; progressive ones pass as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import av
from av.video.frame import VideoFrame

_OPTIONS = "mode=send_frame:parity=auto:deint=interlaced"  # one frame for one


def deinterlaced(frames: Iterator[VideoFrame], notes: Counter[str]) -> Iterator[VideoFrame]:
    """Yield the frames, from the first interlaced one on through bwdif, with a note that it was so.

    bwdif looks at the frame before and the one after: it holds one back.
    """
    graph: av.filter.Graph | None = None
    kind: tuple[int, int, str] | None = None
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        notes["interlaced (made whole by bwdif)"] = 1
        if graph is None or kind != (frame.width, frame.height, frame.format.name):
            if graph is not None:
                yield from _drained(graph)
            graph, kind = _graph(frame), (frame.width, frame.height, frame.format.name)
        graph.push(frame)
        yield from _ready(graph)
    if graph is not None:
        yield from _drained(graph)


def _graph(frame: VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    bwdif = graph.add("bwdif", _OPTIONS)
    sink = graph.add("buffersink")
    source.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()
    return graph


def _drained(graph: av.filter.Graph) -> Iterator[VideoFrame]:
    graph.push(None)
    yield from _ready(graph)


def _ready(graph: av.filter.Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        if isinstance(frame, VideoFrame):
            yield frame

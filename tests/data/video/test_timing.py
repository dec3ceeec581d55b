"""Time that jumps ends a stretch; no clip crosses it, and no clip is made of what is not there."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdevid.data.decode import cut_video
from sdevid.data.spec import CutSpec, LeftOutError
from sdevid.data.video.inspect import Inspection
from sdevid.data.video.timing import timed


def stitched(path: Path, parts: list[tuple[float, int]], rate: int = 25) -> Path:
    """Parts of so many frames that begin at these seconds, one after the other in one file."""
    content, number = b"", 0
    for start, frames in parts:
        part = path.with_suffix(".part.ts")
        with av.open(str(part), "w", format="mpegts") as container:
            stream = container.add_stream("mpeg2video", rate=rate, options={"g": "5", "bf": "0"})
            stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
            for k in range(frames):
                image = np.full((32, 32, 3), 20 + 2 * (number % 100), np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, rate)
                for packet in stream.encode(frame):
                    container.mux(shifted(packet, start))
                number += 1
            for packet in stream.encode():
                container.mux(shifted(packet, start))
        content += part.read_bytes()
        part.unlink()
    path.write_bytes(content)
    return path


def shifted(packet: av.Packet, seconds: float) -> av.Packet:
    ticks = round(seconds / packet.time_base)
    packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
    return packet


def cut(path: Path, spec: CutSpec) -> tuple[list[tuple[float, int, int, int]], Counter[str]]:
    """Start, jumps before it, first and last grey level of each clip; the notes."""
    clips = []
    cutting = cut_video(path, spec)
    while True:
        try:
            start, video, extra = next(cutting)
        except StopIteration as end:
            return clips, end.value
        levels = video.mean((1, 2, 3)).round().astype(int)
        clips.append((start, extra["jumps"], int(levels[0]), int(levels[-1])))


SPEC = CutSpec(16, 8.0, 16, 16, "crop", "npy")


@pytest.mark.parametrize("seconds", [[0, 5000], [5000, 0], [0, 0], [0, 8], [0, 3000, 0]])
def test_jump_ends_a_stretch_and_each_is_cut_alone(tmp_path, seconds):
    path = stitched(tmp_path / "a.ts", [(float(start), 100) for start in seconds])
    clips, notes = cut(path, SPEC)
    assert [jumps for _, jumps, _, _ in clips] == [k for k in range(len(seconds)) for _ in "ab"]
    assert notes["jumps of time (no clip crosses one)"] == len(seconds) - 1
    for number, (start, _, first, last) in enumerate(clips):
        part = number // 2
        assert first < last, "a clip crosses a jump, where the level falls"
        assert start >= 4 * part - 0.1


def test_pause_of_less_than_a_second_is_no_jump(tmp_path):
    clips, notes = cut(stitched(tmp_path / "a.ts", [(0, 50), (2.8, 50)]), SPEC)
    assert len(clips) == 2
    assert not notes["jumps of time (no clip crosses one)"]


def test_slow_film_has_no_jumps_by_its_rate(make_video, make_spec):
    path = make_video("slow.mkv", frames=20, times=[2000 * k for k in range(20)], rate=1)
    clips = list(cut_video(path, make_spec(fps=0.5)))
    assert [extra["jumps"] for _, _, extra in clips] == [0, 0]


def test_stretches_that_are_too_short_are_named(tmp_path):
    path = stitched(tmp_path / "a.ts", [(0, 20), (100, 20)])
    with pytest.raises(LeftOutError, match=r"7 frames at 8 a second between 1 jumps of time"):
        cut(path, SPEC)


def test_clips_of_one_frame_held_are_left_out(make_video, make_spec):
    """Ten frames a second, then one every 0.9 s: less than half of what its own rate gives."""
    flat = [np.full((16, 16, 3), 4 * k, np.uint8) for k in range(50)]
    times = [100 * k for k in range(40)] + [4000 + 900 * k for k in range(10)]
    path = make_video("v.mkv", times=times, rate=10, images=flat)
    clips, notes = cut(path, make_spec(fps=10.0, clip_length=20, clip_stride=20))
    assert [start for start, *_ in clips] == [0.0, 2.0]
    assert notes["clips of too few frames (left out)"] == 4


STEPS = st.lists(
    st.sampled_from([Fraction(1, 25)] * 8 + [Fraction(1, 2), Fraction(3), Fraction(-2)]),
    max_size=60,
)


@given(STEPS)
def test_times_rise_and_stretches_part_at_jumps(steps):
    stamps = [Fraction(7)]
    for step in steps:
        stamps.append(stamps[-1] + step)
    frames = []
    for stamp in stamps:
        frame = av.VideoFrame(16, 16, "gray")
        frame.pts, frame.time_base = int(stamp * 900_000), Fraction(1, 900_000)
        frames.append(frame)
    video = Inspection(0, Fraction(1, 25), 0.0, 2, ())
    shown = list(timed(iter(frames), video))
    assert [t.frame for t in shown] == frames
    assert shown[0][:1] == (0,)
    jumps = [step > 1 or step < 0 for step in steps]
    assert [t.stretch for t in shown] == [sum(jumps[:k]) for k in range(len(shown))]
    times = [t.time for t in shown]
    assert times == sorted(times)

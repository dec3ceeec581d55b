"""With --shots on, no clip crosses a cut; without it, nothing is looked for."""

from __future__ import annotations

import numpy as np
import pytest

from sdevid.data.decode import cut_video
from sdevid.data.spec import LeftOutError
from sdevid.data.video.shots import CUTS

pytest.importorskip("scenedetect")


def shots(lengths: list[int]) -> list[np.ndarray]:
    """Flat colours far apart, one a shot, that drift slowly within it."""
    colours = [(200, 30, 30), (30, 90, 30), (30, 30, 200)]
    return [
        np.full((48, 64, 3), np.array(colours[n % 3]) + k % 8, np.uint8)
        for n, length in enumerate(lengths)
        for k in range(length)
    ]


def test_clip_lies_within_one_shot(make_video, make_spec):
    path = make_video(images=shots([12, 20, 9, 7]), rate=15)
    cutting = cut_video(path, make_spec(shots=True))
    clips = []
    while True:
        try:
            clips.append(next(cutting))
        except StopIteration as end:
            notes = end.value
            break
    assert notes[CUTS] == 3
    assert [extra["shot"] for _, _, extra in clips] == [0, 1, 1, 2]
    for _, video, _ in clips:
        assert np.ptp(video.mean((1, 2)), axis=0).max() < 20, "the colour changes within a clip"
    assert clips[1][0] == pytest.approx(12 / 15, abs=1e-3)


def test_without_it_clips_cross_cuts(make_video, make_spec):
    path = make_video(images=shots([12, 20]), rate=15)
    videos = [video for _, video, _ in cut_video(path, make_spec())]
    assert max(np.ptp(video.mean((1, 2)), axis=0).max() for video in videos) > 100


def test_shots_that_are_all_too_short_are_named(make_video, make_spec):
    path = make_video(images=shots([6, 6, 6]), rate=15)
    with pytest.raises(LeftOutError, match="6 frames at 15 a second between 2 cuts"):
        list(cut_video(path, make_spec(shots=True)))

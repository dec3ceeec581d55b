"""Futures of clips of whose context not every frame was observed."""

from __future__ import annotations

from dataclasses import replace

import factories
import numpy as np
import pytest
import torch

from sdevid import objectives
from sdevid.config import parse
from sdevid.errors import UserError
from sdevid.evaluate.generation import between, continued, futures
from sdevid.types import Batch

CONTEXT, SAMPLES = 3, 2
SOURCE = {"dtype": "float32", "transform": "range", "low": 0.0, "high": 1.0}


@pytest.fixture(scope="module")
def model():
    ahead = {"max_context": 3, "keyframes_fraction": 0.3}
    config = parse(factories.settings(source=SOURCE, observation=ahead))
    torch.manual_seed(0)
    return factories.shake(objectives.build_model(config).eval(), 0.1)


def clips(*lost: tuple[int, int], count: int = 3) -> Batch:
    """Clips; `lost` are those (clip, frame) of which nothing was observed."""
    video, ticks, serial = factories.clips(count)
    values = video.float() / 255
    for clip, frame in lost:
        values[clip, frame] = torch.nan
    return Batch(values, ticks, serial, ("a", "b", "c")[:count], ())


def test_each_clip_is_predicted_from_what_was_observed_of_it(model):
    """The others' futures stay as they are; the clip's own are as if told one frame alone."""
    batch, whole = clips((1, 1), (1, 2)), clips()
    got = futures(model, batch, CONTEXT, SAMPLES, 0)
    want = futures(model, whole, CONTEXT, SAMPLES, 0)
    torch.testing.assert_close(got.samples[[0, 2]], want.samples[[0, 2]])
    kept = [0, 3, 4, 5]
    one = Batch(whole.video[1:2, kept], whole.ticks[1:2, kept], whole.serial[1:2], ("b",), ())
    torch.testing.assert_close(got.samples[1:2], futures(model, one, 1, SAMPLES, 0).samples)
    grey = replace(batch, video=batch.video.nan_to_num(0.5))
    apart = futures(model, grey, CONTEXT, SAMPLES, 0).samples[1] - got.samples[1]
    assert np.abs(apart).max() > 1e-3


def test_a_clip_without_an_observed_frame_is_named(model):
    batch = clips((1, 0), (1, 1), (1, 2), (2, 0))
    with pytest.raises(UserError, match=r"clip b: nothing was observed of the 3 frame\(s\)"):
        futures(model, batch, CONTEXT, SAMPLES, 0)
    with pytest.raises(UserError, match="clip 1: nothing was observed"):
        continued(model, batch.video[:, :CONTEXT].numpy(), 2, 1.0, 0, "films")


def test_an_end_that_was_not_observed_is_no_bridge_to_grey(model):
    whole, lost = clips(count=1), clips((0, 5), count=1)
    got, _ = between(model, lost, [0, 5], [1, 2, 3, 4], SAMPLES, 0)
    want, _ = between(model, whole, [0], [1, 2, 3, 4], SAMPLES, 0)
    torch.testing.assert_close(got, want)

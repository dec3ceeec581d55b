"""What training shows the prior, as often as the settings say."""

import torch

from sdevid.config import ObservationConfig
from sdevid.models.text import as_bytes
from sdevid.objectives.masking import (
    drop_captions,
    first_frames,
    sample_num_initial,
    sample_observed,
)
from sdevid.objectives.window import Window

MIXED = ObservationConfig(
    max_context=3, free_fraction=0.25, ends_fraction=0.25, keyframes_fraction=0.25
)
INITIAL = ObservationConfig(max_context=3, free_fraction=0.25)
FRAMES = 8


def _tolerance(count):
    return 4 * (0.19 / count) ** 0.5  # four standard errors of a share of a quarter


def test_observed_frames_are_of_every_kind_as_often_as_set():
    count = 4000
    observed = sample_observed(MIXED, 0, torch.arange(count), FRAMES)
    number = observed.sum(1)
    leading = observed.long().cumprod(1).sum(1)
    none, initial = number == 0, (number == leading) & (number > 0)
    trailing = observed.flip(1).long().cumprod(1).sum(1)
    ends = (leading > 0) & (trailing > 0) & (leading + trailing == number) & (number < FRAMES)
    error = _tolerance(count)
    assert abs(none.float().mean() - 0.25) < error
    # scattered frames may also look like one of the others, so these are the least there are
    assert initial.float().mean() > 0.25 - error
    assert ends.float().mean() > 0.25 - error
    assert (~(none | initial | ends)).float().mean() > 0.15
    assert number[initial].max() <= 3 + 5
    assert observed.any(0).all()


def test_observed_frames_without_fractions_are_the_initial_ones():
    serial = torch.arange(500)
    count = sample_num_initial(INITIAL, 0, serial, FRAMES)
    want = torch.arange(FRAMES) < count[:, None]
    assert torch.equal(sample_observed(INITIAL, 0, serial, FRAMES), want)


def test_initial_frames_are_none_at_the_set_rate_else_uniform():
    count = sample_num_initial(INITIAL, 0, torch.arange(4000), 6)
    shares = torch.bincount(count, minlength=4) / 4000
    torch.testing.assert_close(shares, torch.full((4,), 0.25), rtol=0, atol=_tolerance(4000))


def test_first_frames_are_those_of_every_clip():
    assert first_frames(torch.arange(3), 5, 2).sum(0).tolist() == [3, 3, 0, 0, 0]


def test_captions_are_dropped_as_often_as_set():
    serial = torch.arange(2000)
    dropped = drop_captions(as_bytes(["disc"] * 2000, 12), 0.25, 0, serial)
    kept = dropped.mask.any(1).float().mean()
    assert abs(kept - 0.75) < _tolerance(2000)


def test_window_starts_at_the_last_leading_observed_frame():
    observed = torch.tensor(
        [
            [1, 1, 0, 0, 0, 0, 0, 1],
            [0, 0, 0, 1, 0, 0, 0, 0],
            [1, 1, 1, 1, 1, 1, 1, 1],
        ]
    ).bool()
    window = Window.after(observed)
    assert window.reference[:, 0].tolist() == [1, 0, 6]
    assert window.valid.sum(1).tolist() == [7, 8, 2]
    assert window.intervals().tolist() == [6, 7, 1]
    frames = torch.arange(8).expand(3, -1)
    assert window.cut(frames)[0].tolist() == [1, 2, 3, 4, 5, 6, 7, 7]

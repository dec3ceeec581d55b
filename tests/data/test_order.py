"""The order of clips: fixed for good, each clip once an epoch, local, and uniform."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sdevid.data.order import Order

shard_sizes = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(sum)
seeds = st.integers(0, 2**40)


def epoch(order: Order, number: int) -> list[int]:
    size = len(order)
    return [order.clip(serial) for serial in range(number * size, (number + 1) * size)]


@given(shard_sizes, seeds, st.integers(0, 1000), st.integers(1, 15))
def test_epoch_holds_every_clip_once(sizes, seed, number, window):
    assert sorted(epoch(Order(sizes, seed, window), number)) == list(range(sum(sizes)))


@given(shard_sizes, seeds, st.integers(1, 15), st.data())
def test_order_of_a_serial_does_not_depend_on_earlier_calls(sizes, seed, window, data):
    size = sum(sizes)
    whole = Order(sizes, seed, window)
    wanted = [whole.clip(serial) for serial in range(3 * size)]
    other = Order(sizes, seed, window)
    asked = data.draw(st.lists(st.integers(0, 3 * size - 1), max_size=20))
    assert [other.clip(serial) for serial in asked] == [wanted[serial] for serial in asked]


@given(shard_sizes, seeds, st.integers(0, 9), st.integers(1, 15))
def test_window_is_read_before_the_next_one_begins(sizes, seed, number, window):
    """The shards of an epoch, cut where all begun ones end: at most `window` a stretch."""
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    left, begun = dict(enumerate(sizes)), set()
    for clip in epoch(Order(sizes, seed, window), number):
        shard = int(shard_of[clip])
        left[shard] -= 1
        begun.add(shard)
        assert len(begun) <= window
        if not any(left[one] for one in begun):
            begun = set()


def test_epochs_and_seeds_differ_and_are_fixed_for_good():
    orders = [tuple(epoch(Order([20, 30], seed, 2), k)) for seed in (0, 1) for k in (0, 1, 2)]
    assert len(set(orders)) == 6
    assert epoch(Order([5, 3], 3, 2), 4) == [0, 2, 3, 4, 5, 7, 6, 1]
    assert epoch(Order([3, 3, 2], 3, 1), 4) == [0, 2, 1, 3, 4, 5, 7, 6]


def test_places_are_uniform():
    """Each clip is as often in each place: chi-squared over 2,000 epochs of six clips."""
    order = Order([2, 4], 0, 2)
    assert chi_squared(np.array([epoch(order, k) for k in range(2_000)])) < 52.6


def test_shards_are_uniform_over_windows():
    """The same of six shards of a clip each, one a window."""
    order = Order([1] * 6, 0, 1)
    assert chi_squared(np.array([epoch(order, k) for k in range(2_000)])) < 52.6


def chi_squared(orders: np.ndarray) -> float:
    """Of the counts of a clip at a place; 99.9 % of chi-squared(25) is 52.6.

    Rows and columns of the counts have fixed sums, which makes Pearson's statistic n / (n - 1)
    times chi-squared with (n - 1)**2 degrees of freedom.
    """
    epochs, size = orders.shape
    counts = np.array([np.bincount(column, minlength=size) for column in orders.T])
    expected = epochs / size
    return float(((counts - expected) ** 2 / expected).sum() * (size - 1) / size)


def test_order_of_millions_of_clips_takes_a_windows_memory():
    order = Order([1_000] * 40_000, 0, 8)
    serials = range(10_000_000, 10_000_000 + 20_000)
    assert len({order.clip(serial) for serial in serials}) == len(serials)
    held = [len(order.shuffled(0, window)) for window in (0, 7)]
    assert held == [8_000, 8_000]

"""The average of the weights, against its definition."""

import pytest
import torch

from sdevid.train.ema import EMA


def test_average_follows_its_recursion_in_place():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(5, generator=generator), torch.randn(2, 3, generator=generator)]
    ema = EMA(weights, decay=0.9)
    expected = [w.double() for w in weights]
    for step in range(1, 200):
        for w in weights:
            w.add_(torch.randn(w.shape, generator=generator))
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = [
            decay * e + (1 - decay) * w.double() for e, w in zip(expected, weights, strict=True)
        ]
    for average, e in zip(ema.average, expected, strict=True):
        torch.testing.assert_close(average.double(), e, rtol=1e-5, atol=1e-5)


def test_early_decay_forgets_untrained_weights():
    weight = torch.full((1,), 1e6)
    ema = EMA([weight], decay=0.9999)
    weight.zero_()
    for step in range(1, 101):
        ema.update(step)
    assert ema.average[0].item() < 1


def test_average_is_not_the_weights_themselves():
    weight = torch.zeros(1)
    ema = EMA([weight], decay=0.5)
    weight.fill_(1)
    assert ema.average[0].item() == pytest.approx(0)

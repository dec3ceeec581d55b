"""The temporal encoder: what a frame's token and the summary may depend on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdevid.config import EncoderConfig
from sdevid.models.temporal import History, TemporalEncoder

FEATURES, FRAMES = 8, 6
TIMES = torch.arange(FRAMES, dtype=torch.float32)
EVERY = torch.ones(1, FRAMES, dtype=torch.bool)


def encoder(*, causal: bool, cells: int = 1, across: bool = False) -> TemporalEncoder:
    torch.manual_seed(0)
    config = EncoderConfig(features=FEATURES, heads=2, causal=causal, across_cells=across)
    result = TemporalEncoder(config, cells)
    for parameter in result.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return result.eval()


def clip(cells: int = 1) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(1, FRAMES, cells, FEATURES)


def first(count: int) -> Tensor:
    return torch.arange(FRAMES)[None] < count


@torch.no_grad()
def history(result: TemporalEncoder, tokens: Tensor, seen: int, **more: Tensor) -> History:
    times = (TIMES - max(0, seen - 1)).expand(len(tokens), -1)
    observed = first(seen).expand(len(tokens), -1)
    out: History = result(tokens, times, observed, **more)
    return out


@pytest.mark.parametrize("seen", [0, 1, 3])
def test_causal_pass_summarises_the_observed_frames_alone(seen):
    result, tokens = encoder(causal=True), clip()
    observed = torch.ones(1, seen, dtype=torch.bool)
    with torch.no_grad():
        times = (TIMES[:seen] - max(0, seen - 1))[None]
        alone = result(tokens[:, :seen], times, observed)
    whole = history(result, tokens, seen, visible=EVERY)
    torch.testing.assert_close(whole.summary, alone.summary)
    assert whole.continued.tolist() == [seen > 0]
    assert alone.continued.tolist() == [seen > 0]


def test_causal_token_sees_no_later_frame_but_earlier_ones():
    result, tokens = encoder(causal=True), clip()
    later = tokens.clone()
    later[:, 3:] *= -1
    before = history(result, tokens, 2, visible=EVERY).tokens
    after = history(result, later, 2, visible=EVERY).tokens
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert bool(((after - before)[:, 3:].abs().amax((2, 3)) > 1e-3).all())
    earlier = tokens.clone()
    earlier[:, 0] *= -1
    shifted = history(result, earlier, 2, visible=EVERY).tokens - before
    assert bool((shifted.abs().amax((2, 3)) > 1e-4).all())


def test_causal_summary_is_the_last_observed_frames_token():
    result = history(encoder(causal=True), clip(), 4, visible=EVERY)
    torch.testing.assert_close(result.summary, result.tokens[:, 3])


@pytest.mark.parametrize("seen", [0, 2])
def test_text_reaches_the_summary_of_a_causal_pass(seen):
    result, tokens = encoder(causal=True), clip()
    one, two = (history(result, tokens, seen, text=text) for text in torch.randn(2, 1, FEATURES))
    assert float((one.summary - two.summary).abs().max()) > 1e-3


def test_future_frames_alone_are_summarised_by_their_token():
    result, tokens = encoder(causal=True), clip()
    with torch.no_grad():
        observed = torch.tensor([[False, False, True, False, False, True]])
        value = result(tokens, TIMES[None], observed)
        other = tokens.clone()
        other[:, 5] *= -1
        shifted = result(other, TIMES[None], observed)
        other[:, 0] *= -1  # not observed
        same = result(other, TIMES[None], observed)
    assert value.continued.tolist() == [False]
    assert float((shifted.summary - value.summary).abs().max()) > 1e-3
    torch.testing.assert_close(same.summary, shifted.summary)


def test_halves_of_a_batch_that_holds_each_clip_twice():
    result, tokens = encoder(causal=True), clip()
    twice = history(result, tokens.repeat(2, 1, 1, 1), 2, text=torch.ones(2, FEATURES))
    one, two = twice.halves()
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b)
    assert one.summary.shape == (1, 1, FEATURES)


@pytest.mark.parametrize("across", [False, True])
def test_cells_see_each_other_across_a_frame_alone(across):
    result, tokens = encoder(causal=True, cells=4, across=across), clip(cells=4)
    other = tokens.clone()
    other[:, 3, 1] *= -1
    before, after = (history(result, each, 2, visible=EVERY).tokens for each in (tokens, other))
    shifted = (before - after).abs().amax(-1)[0] > 1e-5  # frames, cells
    assert not bool(shifted[:3].any())
    assert bool(shifted[3:, 1].all())
    assert bool(shifted[3:, [0, 2, 3]].all()) is across


def test_cell_knows_its_place_across_a_frame():
    result, tokens = encoder(causal=True, cells=4, across=True), clip(cells=4)
    swapped = tokens[:, :, [1, 0, 2, 3]]
    before, after = (history(result, each, 2, visible=EVERY).tokens for each in (tokens, swapped))
    assert float((before[:, :, 0] - after[:, :, 1]).abs().max()) > 1e-3


@pytest.mark.parametrize("across", [False, True])
def test_packed_clips_are_encoded_as_padded_ones(across):
    model = encoder(causal=False, cells=4, across=across).double()
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randn(3, FRAMES, 4, FEATURES, dtype=torch.float64, generator=generator)
    times = TIMES.double().expand(3, -1)
    observed = torch.tensor([[0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1]]).bool()
    text = torch.randn(3, FEATURES, dtype=torch.float64, generator=generator)
    padded = model(tokens, times, observed, text)
    packed = model(tokens, times, observed, text, lengths=[0, 3, 6])
    torch.testing.assert_close(packed.summary, padded.summary)
    torch.testing.assert_close(packed.tokens[observed], padded.tokens[observed])
    assert not packed.tokens[~observed].any()
    for history in (padded, packed):
        loss = history.summary.square().sum() + history.tokens[observed].sin().sum()
        history_gradients = torch.autograd.grad(loss, list(model.parameters()))
        if history is padded:
            expected = history_gradients
    torch.testing.assert_close(history_gradients, expected)

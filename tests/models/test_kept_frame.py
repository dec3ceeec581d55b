"""The last observed frame, kept where the state lets it be."""

from __future__ import annotations

from typing import Any

import factories
import torch

from sdevid.config import parse
from sdevid.models.encoder import LastFrame
from sdevid.models.kept_frame import KeptLast
from sdevid.models.sampling import Conditioning, SamplerConfig
from sdevid.models.video_model import VideoModel
from sdevid.objectives import build
from sdevid.types import frame_ticks

FRAMES, CONTEXT = 6, 3


def model(**encoder: Any) -> VideoModel:
    settings = factories.settings(
        sequence_length=FRAMES,
        sde=factories.MAP,
        encoder={"causal": True, "skip": True} | encoder,
        observation={"max_context": CONTEXT},
    )
    return build(parse(settings)).model.eval()


def predicted(frames: torch.Tensor) -> torch.Tensor:
    ticks = frame_ticks(FRAMES)[None].expand(len(frames), -1)
    given = Conditioning(frames, ticks[:, :CONTEXT])
    return model().generate(ticks[:, CONTEXT:], SamplerConfig(), given).frames


@torch.no_grad()
def test_before_training_a_prediction_is_the_last_frame():
    torch.manual_seed(0)
    frames = 0.05 + 0.9 * torch.rand(2, CONTEXT, 1, 16, 16)
    future = predicted(frames)
    still = frames[:, -1:].expand_as(future)
    torch.testing.assert_close(future, still, atol=0.02, rtol=0)


@torch.no_grad()
def test_what_was_not_observed_is_drawn():
    torch.manual_seed(0)
    frames = 0.05 + 0.2 * torch.rand(1, CONTEXT, 1, 16, 16)
    frames[:, -1, :, :8] = torch.nan
    future = predicted(frames)
    torch.testing.assert_close(future[..., :8, :], torch.full_like(future[..., :8, :], 0.5))
    assert float(future[..., 8:, :].max()) < 0.3


def test_pixels_are_kept_as_odds_and_latents_as_they_are():
    torch.manual_seed(0)
    frame, drawn = torch.rand(2, 3, 4, 4) - 0.5, torch.randn(6, 4, 4, 4)
    share = drawn[:, -1:].sigmoid()
    pixels = KeptLast.beside(3, frame, is_pixels=True).changed(drawn).sigmoid()
    values = (frame.repeat_interleave(3, 0) + 0.5).clamp(4e-3, 1 - 4e-3)
    odds = (values / (1 - values)) ** share * drawn[:, :-1].exp()
    torch.testing.assert_close(pixels, odds / (1 + odds))
    latents = KeptLast.beside(3, 9 * frame, is_pixels=False).changed(drawn)
    torch.testing.assert_close(latents, drawn[:, :-1] + 9 * share * frame.repeat_interleave(3, 0))


@torch.no_grad()
def test_a_clip_without_a_frame_is_drawn_as_without_any():
    torch.manual_seed(0)
    decoder = factories.shake(model()).decoder
    z, w = torch.randn(1, 2, 3, 4, 4), torch.randn(1, 2)
    none = LastFrame(
        tuple(
            torch.zeros(1, each.skip.in_channels, 4 * 2**k, 4 * 2**k)
            for k, each in reversed(list(enumerate(decoder.skips)))
        ),
        torch.zeros(1, 1, 16, 16),
    )
    torch.testing.assert_close(decoder(z, w, none), decoder(z, w))

"""The temporal encoder: attention along time over frame tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from sdevid.config import EncoderConfig
from sdevid.models.attention import attend, attend_packed, heads, packed_backend
from sdevid.models.encoder import LastFrame, Sides, Tokens
from sdevid.models.initial_weights import small_normal
from sdevid.models.packing import Packing
from sdevid.models.transformer import cell_positions

Times = Float[Tensor, "batch time"]  # units from the clip's reference time
Observed = Bool[Tensor, "batch time"]
Rows = Float[Tensor, "rows time features"]  # padded: a row a cell, clip by clip
PackedFrames = Float[Tensor, "frames cells features"]  # clip after clip
OCTAVES = 8


class History(NamedTuple):
    """A clip as the temporal encoder summarises it."""

    summary: Float[Tensor, "batch cells features"]  # of the whole clip, at the reference time
    tokens: Tokens  # a frame each, in the light of all the others
    text: Float[Tensor, "batch features"] | None = None  # embedding of the caption

    continued: Bool[Tensor, " batch"] | None = None  # whether the summary is a seen frame's token
    last: LastFrame | None = None  # what decoder and start see of the last observed frame

    def halves(self) -> tuple[History, History]:
        """Split a batch that holds each clip twice, all clips once and then again."""
        size = len(self.summary) // 2
        return self._rows(slice(None, size)), self._rows(slice(size, None))

    def repeated(self, count: int) -> History:
        """Repeat each clip's `count` times in a row."""
        rows = torch.arange(len(self.summary), device=self.summary.device)
        return self._rows(rows.repeat_interleave(count))

    def _rows(self, rows: slice | Int64[Tensor, " rows"]) -> History:
        text = None if self.text is None else self.text[rows]
        continued = None if self.continued is None else self.continued[rows]
        last = None if self.last is None else self.last.rows(rows)
        return History(self.summary[rows], self.tokens[rows], text, continued, last)


class TimeFeatures(nn.Module):
    """Fourier features of continuous time, each period half the one before, and time itself."""

    def __init__(self, features: int, period: float) -> None:
        super().__init__()
        self.period = period  # the longest, units of time
        self.linear = nn.Linear(2 * OCTAVES + 1, features)

    def forward(self, times: Times) -> Float[Tensor, "batch time features"]:
        """Encode each time, in units of time, to features."""
        eighths = (times * (8 / self.period))[..., None]
        angles = eighths * (2 * math.pi / 8 * 2.0 ** torch.arange(OCTAVES, device=times.device))
        waves = torch.cat([angles.sin(), angles.cos(), eighths], dim=-1)
        out: Tensor = self.linear(waves)
        return out


class TemporalBlock(nn.Module):
    """Pre-norm attention along time, then an MLP."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.features
        self.config = config
        self.before_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(
        self, x: Rows | PackedFrames, seen: Bool[Tensor, "rows *queries time"] | Packing
    ) -> Rows | PackedFrames:
        """Mix each row along time; a query attends to the keys `seen`, or to its clip's pack."""
        parts = self.qkv(self.before_attention(x)).chunk(3, -1)
        query, key, value = (heads(part, self.config.heads) for part in parts)
        if isinstance(seen, Packing):
            using = packed_backend(self.config.attention, x.device.type)
            flat = [each.flatten(1, 2) for each in (query, key, value)]  # a cell is a head
            mixed = attend_packed(flat[0], flat[1], flat[2], seen, using).view(query.shape)
        else:
            mixed = attend(query, key, value, seen)
        x = x + self.out(mixed.flatten(2))
        out: Tensor = x + self.mlp(x)
        return out


class CellAttention(nn.Module):
    """Pre-norm attention across a frame's cells with position encoding; starts at zero."""

    def __init__(self, config: EncoderConfig, sides: Sides) -> None:
        super().__init__()
        self.heads, self.sides = config.heads, sides
        self.norm = nn.LayerNorm(config.features)
        self.place = nn.Linear(4 * (config.features // 4), config.features, bias=False)
        self.qkv = nn.Linear(config.features, 3 * config.features)
        self.out = nn.Linear(config.features, config.features)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Rows, cells: int) -> Rows:
        """Mix the cells of each frame; `x` has a row a cell, clip by clip."""
        frames = self.mix(rearrange(x, "(b n) t d -> (b t) n d", n=cells))
        return rearrange(frames, "(b t) n d -> (b n) t d", t=x.shape[1])

    def mix(self, x: PackedFrames) -> PackedFrames:
        """Mix the cells of each frame."""
        cells = x.shape[1]
        rows, columns = self.sides or (math.isqrt(cells), math.isqrt(cells))
        grid = cell_positions(rows, columns, self.place.in_features, x.device)
        place = self.place(grid.to(x.dtype))
        parts = self.qkv(self.norm(x) + place).chunk(3, -1)
        query, key, value = (heads(part, self.heads) for part in parts)
        out: Tensor = x + self.out(attend(query, key, value, None).flatten(2))
        return out


class Summary(nn.Module):
    """The token that gathers a clip's history: one a cell of a map, with its place encoded.

    Without the place, all cells of a video that begins with no frame would begin alike.
    """

    def __init__(self, features: int, cells: int) -> None:
        super().__init__()
        self.token = small_normal(features)
        self.place = small_normal(cells, features) if cells > 1 else None

    def forward(
        self, tokens: Tokens, text: Float[Tensor, "batch features"] | None
    ) -> Float[Tensor, "batch time+1 cells features"]:
        """Put the summary's token, conditioned on a text, before the first of `tokens`."""
        batch, _, cells, features = tokens.shape
        token = self.token if self.place is None else self.token + self.place
        first = token.to(tokens.dtype).expand(batch, 1, cells, features)
        if text is not None:
            first = first + text.to(tokens.dtype)[:, None, None]
        return torch.cat([first, tokens], dim=1)


class TemporalEncoder(nn.Module):
    """Encodes frame tokens and their times to a clip's history.

    Attention runs along time, each cell of a map by itself, over the observed frames and the
    summary: an unobserved frame changes nothing. With `encoder.across_cells` it then runs across
    the cells of each frame. Positions are continuous times, so any frame rate and any set of times
    can be conditioning.

    With `encoder.causal` a frame's token sees the visible frames up to itself alone, and the
    summary is the token of the last observed frame before the reference time; where there is none,
    it is a token of its own that sees what is observed.
    """

    def __init__(self, config: EncoderConfig, cells: int = 1, sides: Sides = None) -> None:
        super().__init__()
        self.causal = config.causal
        self.summary = Summary(config.features, cells)
        self.time = TimeFeatures(config.features, config.time_period)
        self.blocks = nn.ModuleList(TemporalBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.features)
        across = config.layers if config.across_cells else 0
        self.across = nn.ModuleList(CellAttention(config, sides) for _ in range(across))

    def forward(
        self,
        tokens: Tokens,
        times: Times,
        observed: Observed,
        text: Float[Tensor, "batch features"] | None = None,
        visible: Observed | None = None,
        lengths: Sequence[int] | None = None,
    ) -> History:
        """Encode the tokens.

        `visible` are the frames that a causal pass lets later ones see; None: the observed. With
        `lengths`, the number of observed frames of each clip, no others are computed on: their
        tokens are 0.
        """
        cells = tokens.shape[2]
        at = torch.cat([times.new_zeros(len(times), 1), times], dim=1)
        x = self.summary(tokens, text) + self.time(at)[:, :, None]
        if self.causal and text is not None:  # no frame sees the summary, which the text is in
            x = torch.cat([x[:, :1], x[:, 1:] + text.to(x.dtype)[:, None, None]], dim=1)
        if lengths is not None:
            x = self._packed(x, observed, lengths)
            return History(x[:, 0], x[:, 1:], text)
        x = rearrange(x, "b t n d -> (b n) t d")
        seen = self._mask(observed, observed if visible is None else visible)
        seen = seen.repeat_interleave(cells, dim=0)
        for block, across in zip_longest(self.blocks, self.across):
            x = block(x, seen)
            x = x if across is None else across(x, cells)
        x = rearrange(self.norm(x), "(b n) t d -> b t n d", n=cells)
        if not self.causal:
            return History(x[:, 0], x[:, 1:], text)
        last = leading(observed & (times <= 0))
        summary = x[torch.arange(len(x), device=x.device), last]
        return History(summary, x[:, 1:], text, last > 0)

    def _packed(
        self,
        x: Float[Tensor, "batch places cells features"],
        observed: Observed,
        lengths: Sequence[int],
    ) -> Float[Tensor, "batch places cells features"]:
        """Pass the summary and the observed frames of each clip through the blocks."""
        seen = torch.cat([observed.new_ones(len(observed), 1), observed], dim=1)
        packing = Packing.of(seen, [1 + length for length in lengths])
        frames = packing.pack(x)
        for block, across in zip_longest(self.blocks, self.across):
            frames = block(frames, packing)
            frames = frames if across is None else across.mix(frames)  # type: ignore[operator]
        return packing.unpack(self.norm(frames))

    def _mask(self, observed: Observed, visible: Observed) -> Bool[Tensor, "batch *queries keys"]:
        """Mask the keys that each query sees; in a causal pass every frame sees itself."""
        seen = torch.cat([observed.new_ones(len(observed), 1), observed], dim=1)
        if not self.causal:
            return seen
        frames = visible.shape[1]
        past = torch.ones(frames, frames, dtype=torch.bool, device=visible.device).tril()
        itself = torch.eye(frames, dtype=torch.bool, device=visible.device)
        rows = torch.cat([(visible[:, None] & past) | itself, seen[:, 1:, None] & False], dim=2)
        rows = rows.roll(1, dims=2)  # the summary's key, which no frame sees, comes first
        return torch.cat([seen[:, None], rows], dim=1)


def leading(observed: Observed) -> Int64[Tensor, " batch"]:
    """Count the observed frames with which each clip begins."""
    return observed.long().cumprod(1).sum(1)

"""Captions and labels to one embedding: bytes read by a small transformer, words, or frozen."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.deprecation import former_names
from sdevid.models import frozen_text
from sdevid.models.frozen_text import FrozenText
from sdevid.models.initial_weights import small_normal
from sdevid.models.temporal import TemporalBlock, TimeFeatures
from sdevid.transfer import to_device
from sdevid.types import Batch

WORDS = 4096  # rows of the table in which words and pairs of words are looked up


class Text(NamedTuple):
    """Captions as the text encoder takes them; a caption without letters has an empty mask."""

    tokens: Tensor  # bytes or words, (batch, length) int64; a frozen encoder's, (..., width)
    mask: Bool[Tensor, "batch length"]

    def to(self, device: torch.device) -> Text:
        """Copy to another device."""
        return Text(to_device(self.tokens, device), to_device(self.mask, device))


Tokenizer = Callable[[Sequence[str]], Text]


def tokenizer(config: Config, device: torch.device | str = "cpu") -> Tokenizer | None:
    """Build the function that turns captions into `Text`; None for a model without text.

    Raises UserError where a frozen encoder, which runs on `device`, is asked for and is
    unavailable.
    """
    if config.text.encoder == "none":
        return None
    length = config.text.length
    if config.text.encoder == "bytes":
        return lambda captions: as_bytes(captions, length)
    if config.text.encoder == "words":
        return lambda captions: as_words(captions, length)
    frozen = FrozenText(Path(config.text.encoder), length, device)
    return lambda captions: padded([frozen(caption) for caption in captions])


def blank_tokenizer(config: Config) -> Tokenizer:
    """Build a tokenizer of blank captions alone, for clips that come with their embeddings."""
    nothing = np.zeros((0, frozen_text.width(Path(config.text.encoder))), np.float16)
    return lambda captions: padded([nothing] * len(captions))


def text_inputs(
    tokenize: Tokenizer | None, batch: Batch, device: torch.device
) -> dict[str, Tensor]:
    """Convert a batch's text to an objective's arguments, by name; none for a model without text.

    Embeddings stored beside the clips take precedence over their captions.
    """
    if tokenize is None:
        return {}
    embeddings = batch.embeddings
    text = tokenize(batch.captions) if embeddings is None else padded(embeddings)
    return text.to(device)._asdict()


def padded(embeddings: Sequence[Float16[np.ndarray, "_ width"]]) -> Text:
    """Stack embeddings of several captions in float32, padded with zeros."""
    lengths = torch.tensor([len(each) for each in embeddings])
    longest = max(1, int(lengths.max()))
    tokens = torch.zeros(len(embeddings), longest, embeddings[0].shape[1])
    for row, each in zip(tokens, embeddings, strict=True):
        row[: len(each)] = torch.from_numpy(each)
    return Text(tokens, torch.arange(longest) < lengths[:, None])


def as_bytes(captions: Sequence[str], length: int) -> Text:
    """Encode the first `length` UTF-8 bytes of each caption, padded with zeros."""
    return _rows([list(caption.encode()) for caption in captions], length)


def as_words(captions: Sequence[str], length: int) -> Text:
    """Encode the first `length` words and pairs of neighbours of each caption, padded with zeros.

    A word or pair, in small letters, is the row of a table that its CRC-32 names; two may share
    one.
    """
    return _rows([_words(caption) for caption in captions], length)


def _words(caption: str) -> list[int]:
    words = re.findall(r"\w+", caption.lower())
    pairs = [" ".join(two) for two in itertools.pairwise(words)]
    return [zlib.crc32(token.encode()) % WORDS for token in words + pairs]


def _rows(numbers: Sequence[list[int]], length: int) -> Text:
    tokens = torch.zeros(len(numbers), length, dtype=torch.int64)
    mask = torch.zeros(len(numbers), length, dtype=torch.bool)
    for row, each in enumerate(numbers):
        kept = each[:length]
        tokens[row, : len(kept)] = torch.tensor(kept, dtype=torch.int64)
        mask[row, : len(kept)] = True
    return Text(tokens, mask)


class TextEncoder(nn.Module):
    """Encodes a caption to one vector; a learnt vector stands for no caption.

    Bytes are embedded with their places and pass through attention blocks; words and pairs of
    words are looked up; a frozen encoder's embeddings are projected. The tokens' vectors are
    averaged.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        features = config.encoder.features
        self.bytes = config.text.encoder == "bytes"
        if self.bytes:
            self.embed: nn.Module = nn.Embedding(256, features)
            self.place = TimeFeatures(features, period=128)
            self.blocks = nn.ModuleList(
                TemporalBlock(config.encoder) for _ in range(config.text.layers)
            )
        elif config.text.encoder == "words":
            self.embed = nn.Embedding(WORDS, features)
        else:
            self.embed = nn.Linear(frozen_text.width(Path(config.text.encoder)), features)
        self.norm = nn.LayerNorm(features)
        self.out = nn.Linear(features, features)
        self.null = small_normal(features)

    def forward(self, text: Text) -> Float[Tensor, "batch features"]:
        """Encode captions to vectors; those with an empty mask get the learnt one."""
        some = text.mask.any(1, keepdim=True)
        x = self.embed(text.tokens)
        seen = text.mask.clone()
        seen[:, :1] |= ~some  # attention wants a key in every row
        if self.bytes:
            place = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
            x = x + self.place(place[None])
            for block in self.blocks:
                x = block(x, seen)
        weight = seen.to(x.dtype)[..., None]
        mean = (x * weight).sum(1) / weight.sum(1)
        out: Tensor = torch.where(some, self.out(self.norm(mean)), self.null.to(mean.dtype))
        return out


__getattr__ = former_names(__name__, {"told": text_inputs, "reader": tokenizer})

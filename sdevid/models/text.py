"""Captions and labels to one embedding: bytes read by a small transformer, or a frozen encoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sdevid.config import Config
from sdevid.errors import UserError
from sdevid.models.temporal import Block, TimeFeatures


class Text(NamedTuple):
    """Captions as the text encoder takes them; a caption of no letters has nothing written."""

    tokens: Tensor  # bytes, (batch, length) int64; or a frozen encoder's, (batch, length, width)
    written: Bool[Tensor, "batch length"]

    def to(self, device: torch.device) -> Text:
        """On another device."""
        return Text(self.tokens.to(device), self.written.to(device))


Reader = Callable[[Sequence[str]], Text]


def reader(config: Config) -> Reader | None:
    """What turns captions into `Text`; None for a model without text.

    Raises UserError where a frozen encoder is asked for and cannot be had.
    """
    if config.text.encoder == "none":
        return None
    length = config.text.length
    if config.text.encoder == "bytes":
        return lambda captions: as_bytes(captions, length)
    return _frozen(Path(config.text.encoder), length)


def told(read: Reader | None, captions: Sequence[str], device: torch.device) -> dict[str, Tensor]:
    """The captions as an objective takes them, by name; nothing for a model without text."""
    return {} if read is None else read(captions).to(device)._asdict()


def as_bytes(captions: Sequence[str], length: int) -> Text:
    """UTF-8 bytes, the first `length` of each caption; zeros after its end."""
    tokens = torch.zeros(len(captions), length, dtype=torch.int64)
    written = torch.zeros(len(captions), length, dtype=torch.bool)
    for row, caption in enumerate(captions):
        letters = caption.encode()[:length]
        tokens[row, : len(letters)] = torch.tensor(list(letters), dtype=torch.int64)
        written[row, : len(letters)] = True
    return Text(tokens, written)


class TextEncoder(nn.Module):
    """A caption to one vector; a learnt one stands for no caption.

    Bytes are embedded with their places and pass through attention blocks; what a frozen encoder
    made is projected. The letters' vectors are averaged.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        features = config.encoder.features
        self.bytes = config.text.encoder == "bytes"
        if self.bytes:
            self.embed: nn.Module = nn.Embedding(256, features)
            self.place = TimeFeatures(features)
            self.blocks = nn.ModuleList(Block(config.encoder) for _ in range(config.text.layers))
        else:
            self.embed = nn.Linear(_width(Path(config.text.encoder)), features)
        self.norm = nn.LayerNorm(features)
        self.out = nn.Linear(features, features)
        self.null = nn.Parameter(0.02 * torch.randn(features))

    def forward(self, text: Text) -> Float[Tensor, "batch features"]:
        some = text.written.any(1, keepdim=True)
        x = self.embed(text.tokens)
        seen = text.written.clone()
        seen[:, :1] |= ~some  # attention wants a key in every row
        if self.bytes:
            place = torch.arange(x.shape[1], device=x.device) / 16
            x = x + self.place(place[None])
            for block in self.blocks:
                x = block(x, seen)
        weight = seen.to(x.dtype)[..., None]
        mean = (x * weight).sum(1) / weight.sum(1)
        out: Tensor = torch.where(some, self.out(self.norm(mean)), self.null.to(mean.dtype))
        return out


def _width(folder: Path) -> int:
    """Width of a local Hugging Face encoder's output, from its config.json."""
    settings = _settings(folder)
    settings = settings.get("text_config") or settings
    width = settings.get("d_model") or settings.get("hidden_size")
    if width is None:
        raise UserError(
            f"text.encoder is {folder}, but its config.json names neither d_model nor hidden_size; "
            "give the folder of a T5 or CLIP model"
        )
    return int(width)


def _settings(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"text.encoder is {folder}, but no Hugging Face model is there ({error}); give "
            "'bytes', 'none' or the local folder of a T5 or CLIP model"
        ) from error
    return found


def _frozen(folder: Path, length: int) -> Reader:
    kind = str(_settings(folder).get("model_type"))
    names = {"t5": "T5EncoderModel", "clip": "CLIPTextModel", "clip_text_model": "CLIPTextModel"}
    if kind not in names:
        raise UserError(
            f"text.encoder is {folder}, whose config.json says model_type {kind}; T5 and CLIP "
            "are read"
        )
    try:
        import transformers
    except ImportError:
        raise UserError(
            f"text.encoder is {folder}, but transformers is not installed here; install it, or set "
            "text.encoder=bytes"
        ) from None
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    encoder = getattr(transformers, names[kind]).from_pretrained(folder, local_files_only=True)
    encoder = encoder.eval().requires_grad_(False)

    @torch.no_grad()
    def read(captions: Sequence[str]) -> Text:
        given = tokenizer(
            list(captions), padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        found = encoder(**given).last_hidden_state
        some = torch.tensor([bool(caption) for caption in captions])[:, None]
        return Text(found, given["attention_mask"].bool() & some)

    return read

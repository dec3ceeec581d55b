"""A frozen T5 or CLIP text encoder from a local Hugging Face folder. The only file that knows
transformers.

Nothing is fetched, no code of the folder is run, and of weights only safetensors are read.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdevid.errors import UserError
from sdevid.fingerprint import fingerprint
from sdevid.types import Embedding

_CLASSES = {"t5": "T5EncoderModel", "clip": "CLIPTextModel", "clip_text_model": "CLIPTextModel"}
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt", "spiece.model")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")  # each enough for a tokenizer
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_KEPT = 4_096  # captions whose embeddings are kept
_COMPARED = ("model_type", "width", "length", "config", "weights", "tokenizer")


class FrozenText:
    """Encodes each caption by itself, so that no other caption changes its embedding.

    Embeddings are rounded to float16: half the bytes to read a clip, with an error (2**-11 of a
    value) below that of the bf16 in which networks may run. It computes in float32, since T5 is
    known to overflow float16 within. Raises UserError where the folder holds no T5 or CLIP that
    loads, or transformers is not installed.
    """

    def __init__(self, folder: Path, length: int, device: torch.device | str = "cpu") -> None:
        self.folder, self.device = folder, device
        self.identity = identity(folder, length)
        settings = _read_settings(folder)
        most = settings.get("max_position_embeddings")  # CLIP's; T5 has places for any number
        self._length = length if most is None else min(length, int(most))
        self._tokenizer, self.encoder = _load(folder, self.identity["model_type"])
        self.encoder.to(device)
        self._embed = lru_cache(_KEPT)(self._embedded)

    def __call__(self, caption: str) -> Embedding:
        """Encode one caption to (tokens, width); an empty one has no token.

        Raises UserError where the folder's tokenizer and encoder do not go together.
        """
        return self._embed(caption.strip())

    @torch.no_grad()
    def _embedded(self, caption: str) -> Embedding:
        width = self.identity["width"]
        if not caption:
            return np.zeros((0, width), np.float16)
        try:
            tokens = self._tokenizer(
                caption, truncation=True, max_length=self._length, return_tensors="pt"
            )
            inputs = {
                name: tokens[name].to(self.device) for name in ("input_ids", "attention_mask")
            }
            states = self.encoder(**inputs).last_hidden_state[0].cpu().numpy()
        except Exception as error:  # tokenizers raise plain ones
            raise UserError(
                f"the text encoder in {self.folder} does not take the caption {caption!r} "
                f"({_reason(error)}); its tokenizer and config.json are of different models, or "
                "damaged: copy the folder again"
            ) from error
        embedding: Embedding = states.astype(np.float16)
        if embedding.shape[1] != width or not np.isfinite(embedding).all():
            raise UserError(
                f"the text encoder in {self.folder} gives {embedding.shape[1]} values a token "
                f"for {caption!r}, {np.isfinite(embedding).mean():.0%} of them finite in float16, "
                f"but {width} finite ones are needed: its weights are damaged, copy them again"
            )
        return embedding


def identity(folder: Path, length: int) -> dict[str, Any]:
    """Describe the encoder by what tells it apart from others, as JSON; a copy is the same one.

    `length` is the most tokens of a caption. `weights` and `tokenizer` are None where the folder
    does not hold them.
    """
    settings = _read_settings(folder)
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]
    tokenizer = [path for pattern in _TOKENIZER for path in folder.glob(pattern)]
    try:
        return {
            "model_type": settings["model_type"],
            "width": width(folder),
            "length": length,
            "config": fingerprint([folder / "config.json"]),
            "weights": fingerprint(weights),
            "tokenizer": fingerprint(tokenizer),
        }
    except OSError as error:
        raise UserError(f"text encoder {folder} does not read: {error}") from error


def width(folder: Path) -> int:
    """Read from config.json how many values a token has that the encoder in `folder` gives.

    Raises UserError where no T5 or CLIP is there.
    """
    settings = _read_settings(folder)
    size = settings.get("d_model") or settings.get("hidden_size")
    if not isinstance(size, int):
        raise UserError(
            f"text encoder {folder}: its config.json names neither d_model nor hidden_size; give "
            "the folder of a T5 or CLIP model"
        )
    return size


def difference(recorded: dict[str, Any], here: dict[str, Any]) -> str | None:
    """Describe how the recorded encoder differs from the one `here`; None where it does not.

    What the folder here lacks is not compared.
    """
    for name in _COMPARED:
        if here[name] is not None and recorded.get(name) != here[name]:
            return f"{name} {recorded.get(name)} there, {here[name]} here"
    return None


def _read_settings(folder: Path) -> dict[str, Any]:
    """Read a text encoder's config.json: of a whole CLIP its text part, with the model's type."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = settings["model_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"text encoder {folder}: no Hugging Face model is there ({_reason(error)}); give the "
            "local folder of a T5 or CLIP model, or set text.encoder to bytes or none; for a "
            "trained model, put the folder back, or export the model and name the new place in "
            "the export's config.yaml"
        ) from error
    if kind not in _CLASSES:
        raise UserError(
            f"text encoder {folder}: its config.json says model_type {kind}, but T5 and CLIP are "
            "read; give the folder of one of them"
        )
    text = settings.get("text_config")
    return {**(text if isinstance(text, dict) else settings), "model_type": kind}


def _load(folder: Path, kind: str) -> tuple[Any, Any]:
    """Load tokenizer and encoder, in float32, frozen."""
    _check_files(folder)
    try:
        import transformers
    except ImportError:
        raise UserError(
            f"text encoder {folder} needs transformers, which is not installed here; "
            "`pip install 'sdevid[text]'` brings it"
        ) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    only = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **only)
        encoder, report = getattr(transformers, _CLASSES[kind]).from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **only
        )
    except Exception as error:  # of transformers, tokenizers, safetensors and the disk
        raise UserError(
            f"text encoder {folder} does not load ({_reason(error)}); copy it again: config.json, "
            "the safetensors, and the tokenizer as tokenizer.json (save_pretrained writes one)"
        ) from error
    if report["missing_keys"]:
        raise UserError(
            f"text encoder {folder}: its safetensors lack {len(report['missing_keys'])} tensors, "
            f"as {min(report['missing_keys'])}; copy the weights again"
        )
    return tokenizer, encoder.eval().requires_grad_(False)


def _check_files(folder: Path) -> None:
    """Raise UserError where weights or vocabulary are not there, or not to be read.

    Without a vocabulary transformers makes a tokenizer to which every word is unknown.
    """
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        raise UserError(
            f"text encoder {folder} holds no tokenizer; copy {' or '.join(_VOCABULARIES)} there"
        )
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for kind in _PICKLES for path in folder.glob(kind))
    if pickled:
        raise UserError(
            f"text encoder {folder} has its weights as {pickled[0]}, a pickle, which may run code "
            "and is not read; get the model's safetensors, or save it anew with save_pretrained"
        )
    raise UserError(f"text encoder {folder} holds no weights; copy its *.safetensors there")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

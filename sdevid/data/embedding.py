"""KEY.text.npy: what a frozen text encoder makes of a clip's caption, stored beside the clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from sdevid.data.npy import read_npy, write_npy
from sdevid.types import Embedding

TEXT = "text.npy"  # the member's extension


def member_name(caption: int) -> str:
    """Name the extension under which the embedding of caption number `caption` is stored."""
    return TEXT if caption == 0 else f"text-{caption}.npy"


def member(draw: float, members: Mapping[str, object]) -> str:
    """Pick one of a clip's caption embeddings by `draw` in [0, 1); return its extension."""
    count = 1
    while member_name(count) in members:
        count += 1
    return member_name(int(draw * count))


class Embedder(Protocol):
    """A frozen text encoder."""

    @property
    def identity(self) -> dict[str, Any]:
        """Identity of the encoder, as JSON; `width` is the number of values of a token."""
        ...

    def __call__(self, caption: str) -> Embedding:
        """Embed one caption; an empty one has no token."""
        ...


def encode(embedding: Embedding) -> bytes:
    """Encode as the bytes of one tar member; the same embedding gives the same bytes."""
    return write_npy(embedding)


def decode(content: bytes, width: int) -> Embedding:
    """Decode the embedding in a member's bytes. ValueError where they hold anything else."""
    try:
        array = read_npy(content)
    except ValueError as error:
        raise ValueError(f"its {TEXT} does not decode: {error}") from error
    if array.dtype != np.float16 or array.ndim != 2 or array.shape[1] != width:
        raise ValueError(
            f"its {TEXT} holds {array.dtype} {array.shape}, not float16 (tokens, {width})"
        )
    embedding: Embedding = array
    return embedding

"""One attention function. The only file that knows xformers."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from sdevid.errors import UserError

Backend = Literal["xformers", "sdpa"]
Heads = Float[Tensor, "batch length heads width"]


@cache
def backend(choice: Literal["auto", "xformers", "sdpa"], device: str) -> Backend:
    """Choose the attention that `choice` means on a device type ("cpu", "cuda").

    xformers runs on CUDA alone; "auto" takes it there where it is installed. Raises UserError where
    xformers is asked for and cannot run.
    """
    if choice == "sdpa" or (choice == "auto" and device != "cuda"):
        return "sdpa"
    try:
        import xformers.ops  # noqa: F401
    except ImportError:
        if choice == "auto":
            return "sdpa"
        raise UserError(
            "encoder.attention is xformers, but xformers does not import here; "
            "install it or set encoder.attention=auto"
        ) from None
    if device != "cuda":
        raise UserError(
            f"encoder.attention is xformers, but it does not run on {device}; set auto or sdpa"
        )
    return "xformers"


def attend(
    query: Heads,
    key: Heads,
    value: Heads,
    seen: Bool[Tensor, "batch *queries length"] | None,
    using: Backend,
) -> Heads:
    """Compute softmax(q k^T / sqrt(width)) v over the keys `seen` (Vaswani et al. 2017, eq. 1).

    `seen` is the same for all queries of a row or differs between them; None: all keys. A mask that
    differs between queries always runs by PyTorch's attention.

    Each query must see at least one key. The output at queries that are not `seen` is undefined.
    """
    if seen is not None and seen.dim() == 3:
        using = "sdpa"
    if using == "xformers":
        seen = torch.ones_like(query[:, :, 0, 0], dtype=torch.bool) if seen is None else seen
        return _attend_packed(query, key, value, seen)
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    mask = None
    if seen is not None:
        mask = seen[:, None, None] if seen.dim() == 2 else seen[:, None]
    return functional.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2)


def _attend_packed(
    query: Heads, key: Heads, value: Heads, seen: Bool[Tensor, "batch length"]
) -> Heads:
    """Pack the seen places of all rows into one sequence, each row a block of the mask."""
    from xformers.ops import memory_efficient_attention
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    blocks = BlockDiagonalMask.from_seqlens(seen.sum(1).tolist())
    packed = (x[seen][None] for x in (query, key, value))
    out = torch.zeros_like(query)
    out[seen] = memory_efficient_attention(*packed, attn_bias=blocks)[0]
    return out


def heads(x: Float[Tensor, "batch length features"], count: int) -> Heads:
    """Split features into `count` heads of equal width."""
    return torch.unflatten(x, -1, (count, -1))

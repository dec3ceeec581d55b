"""Attention over padded and over packed sequences. The only file that knows xformers."""

from __future__ import annotations

from functools import cache
from itertools import accumulate
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from sdevid.errors import UserError
from sdevid.models.packing import Packing

Backend = Literal["xformers", "sdpa"]
Heads = Float[Tensor, "batch length heads width"]
PackedHeads = Float[Tensor, "packed heads width"]


@cache
def packed_backend(choice: Literal["auto", "xformers", "sdpa"], device: str) -> Backend:
    """Choose what `choice` means for packed clips on a device type ("cpu", "cuda").

    xformers runs on CUDA alone; "auto" takes it there where a small pack passes through it. Raises
    UserError where xformers is asked for and cannot run.
    """
    if choice == "sdpa" or (choice == "auto" and device != "cuda"):
        return "sdpa"
    reason = _without_xformers(device)
    if reason is None:
        return "xformers"
    if choice == "auto":
        return "sdpa"
    raise UserError(f"encoder.attention is xformers, but {reason}; set encoder.attention=auto")


def _without_xformers(device: str) -> str | None:
    """Say why xformers cannot run on `device`, or None if it can."""
    if device != "cuda":
        return f"it does not run on {device}"
    try:
        import xformers.ops  # noqa: F401
    except ImportError:
        return "xformers does not import here"
    x = torch.zeros(3, 2, 32, dtype=torch.bfloat16, device=device, requires_grad=True)
    seen = torch.tensor([[True, False], [True, True]], device=device)
    try:
        total = attend_packed(x, x, x, Packing.of(seen, (1, 2)), "xformers").sum()
        torch.autograd.grad(total, x)
    except NotImplementedError as error:  # a wheel of another PyTorch, or an unknown GPU
        return f"it has no kernel here ({str(error).splitlines()[0]})"
    return None


def attend(
    query: Heads, key: Heads, value: Heads, seen: Bool[Tensor, "batch *queries length"] | None
) -> Heads:
    """Compute softmax(q k^T / sqrt(width)) v over the keys `seen` (Vaswani et al. 2017, eq. 1).

    `seen` is the same for all queries of a row or differs between them; None: all keys. Each query
    must see at least one key.
    """
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    mask = None
    if seen is not None:
        mask = seen[:, None, None] if seen.dim() == 2 else seen[:, None]
    return functional.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2)


def attend_packed(
    query: PackedHeads, key: PackedHeads, value: PackedHeads, packing: Packing, using: Backend
) -> PackedHeads:
    """Compute attention of each row of a pack within itself.

    By xformers without a gap; by PyTorch's attention in padded rows, which float32 always takes:
    xformers has kernels for 16 bit alone.
    """
    if using == "xformers" and query.dtype in (torch.float16, torch.bfloat16):
        from xformers.ops import memory_efficient_attention

        packed = (x[None] for x in (query, key, value))
        out: Tensor = memory_efficient_attention(*packed, attn_bias=block_diagonal(packing))[0]
        return out
    query, key, value = (packing.unpack(x) for x in (query, key, value))
    return packing.pack(attend(query, key, value, packing.seen))


def block_diagonal(packing: Packing) -> Any:
    """Build xformers' BlockDiagonalMask of a pack's rows; nothing is copied to the device."""
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask, _SeqLenInfo

    lengths = packing.lengths
    starts = list(accumulate(lengths, initial=0))
    rows = _SeqLenInfo(packing.starts, max(lengths), min(lengths), starts)
    return BlockDiagonalMask(q_seqinfo=rows, k_seqinfo=rows)


def heads(x: Float[Tensor, "*rows features"], count: int) -> Float[Tensor, "*rows heads width"]:
    """Split features into `count` heads of equal width."""
    return torch.unflatten(x, -1, (count, -1))

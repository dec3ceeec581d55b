# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""A program's block of rows, and its Brownian increments."""

from __future__ import annotations

import triton
import triton.language as tl

from sdevid_kernels.em_trajectory.triton.arguments import Block
from sdevid_kernels.philox.kernel import lanes


@triton.jit
def block_from(first_row, rows, size, width, const):
    """Return the block of rows that begins with `first_row`."""
    row = first_row + tl.arange(0, const.ROWS).to(tl.int64)
    component = tl.arange(0, const.D)
    is_row = row < rows
    row = tl.where(is_row, row, 0)
    is_element = is_row[:, None] & (component[None, :] < size)
    return Block(row, is_row, is_element, component, rows, size, width)


@triton.jit
def element_of(block):
    """Compute offsets of the block's elements in an array (rows, size): (ROWS, D)."""
    return block.row[:, None] * block.size + block.component[None, :]


@triton.jit
def scratch_element_of(scratch, block):
    """Compute offsets of this step's elements in scratch memory, and which exist: (ROWS, D)."""
    offset = scratch.row[:, None] * block.size + block.component[None, :]
    return offset, (scratch.row[:, None] >= 0) & (block.component[None, :] < block.size)


@triton.jit
def increment(noise, k, block, span, const):
    """Draw or read dW of step k, which takes `span` (ROWS,): (ROWS, D)."""
    size, tokens = block.size, noise.tokens
    if const.DRAWN:
        clip = block.row // tokens
        group = (block.row % tokens) * ((size + 3) // 4)
        groups = tokens * ((size + 3) // 4)
        index = tl.load(noise.cell_ptr + k * noise.clips + clip) * groups + group
        index = index[:, None] + tl.arange(0, const.D // 4)[None, :]
        serial = tl.load(noise.serial_ptr + clip)[:, None] + index * 0
        n0, n1, n2, n3 = lanes(noise.seed, serial, index, 0, span[:, None])
        dw = tl.interleave(tl.interleave(n0, n2), tl.interleave(n1, n3))
    else:
        row = k * tokens * noise.clips + block.row
        offset = row[:, None] * size + block.component[None, :]
        dw = tl.load(noise.dw_ptr + offset, mask=block.is_element, other=0.0)
    return dw

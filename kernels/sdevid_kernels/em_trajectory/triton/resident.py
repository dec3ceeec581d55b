# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: N803
"""SiLU networks whose weights are loaded before the first step and stay with the program.

A layer's units are one tile, so that each warp keeps the weights of its own units, and hidden
values pass from layer to layer without scratch memory.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sdevid_kernels.em_trajectory.triton.arguments import ResidentWeights
from sdevid_kernels.em_trajectory.triton.mlp_stack import last_bias, last_layer


@triton.jit
def load_resident(stack, block, const, TWO: tl.constexpr):
    """Load all weights of a network."""
    unit, width = tl.arange(0, tl.constexpr(const.TILE)), block.width
    component = block.component
    is_first = (unit[None, :] < width) & (component[:, None] < block.size)
    first_ptr = stack.first_ptr + unit[None, :] * block.size + component[:, None]
    first = tl.load(first_ptr, mask=is_first, other=0.0)
    last = tl.trans(last_layer(stack, 0, unit, block))
    last_width = last
    if TWO:
        last_width = tl.trans(last_layer(stack, block.size, unit, block))
    second, second_bias = first, unit
    if const.LAYERS > 1:
        second, second_bias = _inner(stack.inner[0], unit, width)
    third, third_bias = second, second_bias
    if const.LAYERS > 2:
        third, third_bias = _inner(stack.inner[1], unit, width)
    return ResidentWeights(first, second, third, second_bias, third_bias, last, last_width)


@triton.jit
def _inner(layer, unit, width):
    """Load a hidden layer's weight (TILE, TILE) and bias (TILE,)."""
    is_weight = (unit[None, :] < width) & (unit[:, None] < width)
    weight_ptr = layer[0] + unit[None, :] * width + unit[:, None]
    b_bias = tl.load(layer[1] + unit, mask=unit < width, other=0.0)
    return tl.load(weight_ptr, mask=is_weight, other=0.0), b_bias


@triton.jit
def resident_forward(z, stack, weights, shift_ptr, block, const, TWO: tl.constexpr):
    """Compute a network's outputs (ROWS, D), and the second half of them where TWO."""
    unit, width = tl.arange(0, tl.constexpr(const.TILE)), block.width
    is_unit = block.is_row[:, None] & (unit[None, :] < width)
    shift = tl.load(shift_ptr + block.row[:, None] * width + unit[None, :], mask=is_unit, other=0.0)
    value = _silu(shift + tl.dot(z, weights.first, input_precision=const.PRECISION))
    if const.LAYERS > 1:
        product = tl.dot(value, weights.second, input_precision=const.PRECISION)
        value = _silu(product + weights.second_bias[None, :])
    if const.LAYERS > 2:
        product = tl.dot(value, weights.third, input_precision=const.PRECISION)
        value = _silu(product + weights.third_bias[None, :])
    one, two = last_bias(stack, 0, block, const), tl.full((const.ROWS, const.D), 0.0, tl.float32)
    one += tl.dot(value, weights.last, input_precision=const.PRECISION)
    if TWO:
        two += last_bias(stack, block.size, block, const)
        two += tl.dot(value, weights.last_width, input_precision=const.PRECISION)
    return one, two


@triton.jit
def _silu(x):
    """Compute x sigmoid(x)."""
    return x * tl.sigmoid(x)

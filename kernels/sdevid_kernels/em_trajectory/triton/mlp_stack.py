# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: N803
"""SiLU networks on a block of rows, a tile of hidden units at a time.

A state of more than 64 components is read from scratch memory: from registers, a product over all
of it would take too many of them.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def first_layer(z, stack, shift_ptr, unit, scratch, block, const):
    """Compute pre-activations of the first layer's units `unit`: (ROWS, TILE)."""
    size, width = block.size, block.width
    is_unit = block.is_row[:, None] & (unit[None, :] < width)
    offset = block.row[:, None] * width + unit[None, :]
    pre = tl.load(shift_ptr + offset, mask=is_unit, other=0.0)
    if const.D > 64:
        pre += inner_layer(scratch.states_ptr, stack.first_ptr, unit, size, scratch, block, const)
    else:
        component = block.component
        is_weight = (unit[None, :] < width) & (component[:, None] < size)
        weight_ptr = stack.first_ptr + unit[None, :] * size + component[:, None]
        b_weight = tl.load(weight_ptr, mask=is_weight, other=0.0)
        pre += tl.dot(z, b_weight, input_precision=const.PRECISION)
    return pre


@triton.jit
def inner_layer(values_ptr, weight_ptr, unit, inputs, scratch, block, const):
    """Multiply `values` (rows, inputs) by rows `unit` of the weight (width, inputs).

    The product is (ROWS, TILE).
    """
    product = tl.full((const.ROWS, const.TILE), 0.0, tl.float32)
    row = scratch.row[:, None]
    for begin in range(0, inputs, const.K):
        k = begin + tl.arange(0, const.K)
        is_value = (row >= 0) & (k[None, :] < inputs)
        b_value = tl.load(values_ptr + row * inputs + k[None, :], mask=is_value, other=0.0)
        is_weight = (unit[None, :] < block.width) & (k[:, None] < inputs)
        offset = unit[None, :] * inputs + k[:, None]
        b_weight = tl.load(weight_ptr + offset, mask=is_weight, other=0.0)
        product += tl.dot(b_value, b_weight, input_precision=const.PRECISION)
    return product


@triton.jit
def inner_layer_backward(grads_ptr, weight_ptr, unit, outputs, scratch, block, const):
    """Multiply `grads` (rows, outputs) by columns `unit` of the weight (outputs, width).

    The product is (ROWS, TILE).
    """
    product = tl.full((const.ROWS, const.TILE), 0.0, tl.float32)
    row = scratch.row[:, None]
    for begin in range(0, outputs, const.K):
        k = begin + tl.arange(0, const.K)
        is_grad = (row >= 0) & (k[None, :] < outputs)
        b_grad = tl.load(grads_ptr + row * outputs + k[None, :], mask=is_grad, other=0.0)
        is_weight = (unit[None, :] < block.width) & (k[:, None] < outputs)
        offset = k[:, None] * block.width + unit[None, :]
        b_weight = tl.load(weight_ptr + offset, mask=is_weight, other=0.0)
        product += tl.dot(b_grad, b_weight, input_precision=const.PRECISION)
    return product


@triton.jit
def last_layer(stack, first_output, unit, block):
    """Load the last layer's weights of outputs `first_output` on and of units `unit`: (D, TILE)."""
    component = block.component
    is_weight = (unit[None, :] < block.width) & (component[:, None] < block.size)
    offset = (first_output + component)[:, None] * block.width + unit[None, :]
    return tl.load(stack.last_ptr + offset, mask=is_weight, other=0.0)


@triton.jit
def last_bias(stack, first_output, block, const):
    """Load the last layer's bias from `first_output` on, for every row: (ROWS, D)."""
    is_output = block.component < block.size
    bias_ptr = stack.bias_ptr + first_output + block.component
    b_bias = tl.load(bias_ptr, mask=is_output, other=0.0)
    return b_bias[None, :] + tl.full((const.ROWS, const.D), 0.0, tl.float32)


@triton.jit
def stack_forward(
    z,
    stack,
    shift_ptr,
    layers_ptr,
    scratch,
    block,
    const,
    TWO: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """Compute a network's outputs (ROWS, D), and the second half of them where TWO.

    Leaves at `layers_ptr` the values that the next layer reads or, where BACKWARD, all values and
    slopes.
    """
    area, width = scratch.area, block.width
    one, two = last_bias(stack, 0, block, const), tl.full((const.ROWS, const.D), 0.0, tl.float32)
    if TWO:
        two += last_bias(stack, block.size, block, const)
    for layer in tl.static_range(tl.constexpr(const.LAYERS)):
        if layer > 0:
            tl.debug_barrier()  # its values are there
        for begin in range(0, width, const.TILE):
            unit = begin + tl.arange(0, const.TILE)
            if layer == 0:
                pre = first_layer(z, stack, shift_ptr, unit, scratch, block, const)
            else:
                values_ptr = layers_ptr + (layer - 1) * area * width
                weight_ptr, bias_ptr = stack.inner[layer - 1]
                pre = inner_layer(values_ptr, weight_ptr, unit, width, scratch, block, const)
                pre += tl.load(bias_ptr + unit, mask=unit < width, other=0.0)[None, :]
            s = tl.sigmoid(pre)
            value = pre * s
            offset = scratch.row[:, None] * width + unit[None, :]
            is_unit = (scratch.row[:, None] >= 0) & (unit[None, :] < width)
            if BACKWARD or layer + 1 < const.LAYERS:
                tl.store(layers_ptr + layer * area * width + offset, value, mask=is_unit)
            if BACKWARD:
                slopes_ptr = layers_ptr + (const.LAYERS + layer) * area * width
                tl.store(slopes_ptr + offset, s * (1 + pre * (1 - s)), mask=is_unit)
            if layer + 1 == const.LAYERS:
                b_last = tl.trans(last_layer(stack, 0, unit, block))
                one += tl.dot(value, b_last, input_precision=const.PRECISION)
                if TWO:
                    b_last = tl.trans(last_layer(stack, block.size, unit, block))
                    two += tl.dot(value, b_last, input_precision=const.PRECISION)
    return one, two


@triton.jit
def last_layer_backward(
    grad, grad_second, stack, layers_ptr, unit, scratch, block, const, TWO: tl.constexpr
):
    """Compute the gradient of the last hidden layer's values from the outputs': (ROWS, TILE)."""
    if const.D > 64:
        grads_ptr = layers_ptr + 3 * const.LAYERS * scratch.area * block.width
        outputs = (2 if TWO else 1) * block.size
        up = inner_layer_backward(grads_ptr, stack.last_ptr, unit, outputs, scratch, block, const)
    else:
        up = tl.dot(grad, last_layer(stack, 0, unit, block), input_precision=const.PRECISION)
        if TWO:
            b_last = last_layer(stack, block.size, unit, block)
            up += tl.dot(grad_second, b_last, input_precision=const.PRECISION)
    return up


@triton.jit
def stack_backward(
    grad,
    grad_second,
    stack,
    layers_ptr,
    grad_shift_ptr,
    scratch,
    block,
    const,
    TWO: tl.constexpr,
    SHIFT: tl.constexpr,
):
    """Compute the state's gradient (ROWS, D) from the outputs', by the slopes at `layers_ptr`.

    Leaves the pre-activations' gradients there, and the first layer's at `grad_shift_ptr` where
    SHIFT.
    """
    area, size, width = scratch.area, block.size, block.width
    component = block.component
    grad_z = tl.full((const.ROWS, const.D), 0.0, tl.float32)
    for layer in tl.static_range(tl.constexpr(const.LAYERS - 1), -1, -1):
        tl.debug_barrier()  # slopes, and the next layer's gradients, are there
        for begin in range(0, width, const.TILE):
            unit = begin + tl.arange(0, const.TILE)
            offset = scratch.row[:, None] * width + unit[None, :]
            is_unit = (scratch.row[:, None] >= 0) & (unit[None, :] < width)
            if layer + 1 == const.LAYERS:
                up = last_layer_backward(
                    grad, grad_second, stack, layers_ptr, unit, scratch, block, const, TWO
                )
            else:
                grads_ptr = layers_ptr + (2 * const.LAYERS + layer + 1) * area * width
                weight_ptr = stack.inner[layer][0]
                up = inner_layer_backward(grads_ptr, weight_ptr, unit, width, scratch, block, const)
            slopes_ptr = layers_ptr + (const.LAYERS + layer) * area * width
            up *= tl.load(slopes_ptr + offset, mask=is_unit, other=0.0)
            tl.store(layers_ptr + (2 * const.LAYERS + layer) * area * width + offset, up, is_unit)
            if layer == 0:
                if SHIFT:
                    is_shift = block.is_row[:, None] & (unit[None, :] < width)
                    shift_offset = block.row[:, None] * width + unit[None, :]
                    tl.store(grad_shift_ptr + shift_offset, up, mask=is_shift)
                is_weight = (unit[:, None] < width) & (component[None, :] < size)
                weight_ptr = stack.first_ptr + unit[:, None] * size + component[None, :]
                b_weight = tl.load(weight_ptr, mask=is_weight, other=0.0)
                grad_z += tl.dot(up, b_weight, input_precision=const.PRECISION)
    return grad_z

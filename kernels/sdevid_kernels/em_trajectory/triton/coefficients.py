# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# ruff: noqa: N803
"""How the fused chain reads g, u and r, and their gradients, on a block (ROWS, D)."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from sdevid_kernels.em_trajectory import reference
from sdevid_kernels.em_trajectory.triton.blocks import element_of
from sdevid_kernels.em_trajectory.triton.mlp_stack import stack_forward
from sdevid_kernels.em_trajectory.triton.resident import resident_forward

WIDTH_START = tl.constexpr(reference.WIDTH_START)


class StepCoefficients(NamedTuple):
    """A step's coefficients, and what their gradients need beside."""

    h: Any
    g: Any
    u: Any
    r: Any
    free_u: Any  # u before its bound


class DiffusionHere(NamedTuple):
    """g at a state, and where it depends on the state what its gradients need."""

    g: Any
    tanh_z: Any
    rise: Any  # the softplus's slope
    tilt: Any  # the slope of g's argument in tanh z, here
    curve: Any  # half of that slope's own


class CoefficientGradients(NamedTuple):
    """Gradients of the networks' outputs, of g's terms, and of the state through g."""

    drift: Any
    control: Any
    width: Any
    level: Any
    slope: Any
    curve: Any
    z: Any


@triton.jit
def tanh(x):
    """Compute tanh by the sigmoid."""
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def diffusion_at(z, chain, block, const):
    """Evaluate g at `z` (ROWS, D), reading its terms again each time: registers are scarce."""
    element, is_element, model = element_of(block), block.is_element, chain.model
    level = tl.load(model.level_ptr + element, mask=is_element, other=0.0)
    g, tanh_z, rise, tilt, curve = level, level, level, level, level
    if const.DIFFUSION > 0:
        slope = tl.load(model.slope_ptr + element, mask=is_element, other=0.0)
        curve = tl.load(model.curve_ptr + element, mask=is_element, other=0.0)
        tanh_z = tanh(z)
        raw = level + (slope + curve * tanh_z) * tanh_z + chain.numbers.start
        tilt = slope + 2 * curve * tanh_z
        rise = tl.sigmoid(raw)
        g = chain.numbers.floor + tl.maximum(raw, 0.0) + tl.log(1 + tl.exp(-tl.abs(raw)))
    return DiffusionHere(tl.where(is_element, g, 1.0), tanh_z, rise, tilt, curve)


@triton.jit
def outputs_at(
    z,
    stack,
    weights,
    shift_ptr,
    layers_ptr,
    scratch,
    block,
    const,
    TWO: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """Compute a network's outputs by its resident `weights`, or as `stack_forward` does."""
    if const.RESIDENT:
        one, two = resident_forward(z, stack, weights, shift_ptr, block, const, TWO)
    else:
        one, two = stack_forward(
            z, stack, shift_ptr, layers_ptr, scratch, block, const, TWO, BACKWARD
        )
    return one, two


@triton.jit
def coefficients_at(z, k, chain, resident, scratch, block, const, BACKWARD: tl.constexpr):
    """Evaluate the coefficients of step k at `z` (ROWS, D); `resident`: drift's and control's."""
    model, unit, bound = chain.model, chain.numbers.unit, chain.numbers.bound
    is_element = block.is_element
    h, _ = outputs_at(
        z,
        model.drift,
        resident[0],
        model.drift_shift_ptr,
        scratch.drift_ptr,
        scratch,
        block,
        const,
        TWO=False,
        BACKWARD=BACKWARD,
    )
    here = diffusion_at(z, chain, block, const)
    g = here.g
    if const.DIFFUSION > 1:
        h += 0.5 * g * here.rise * here.tilt * (1 - here.tanh_z * here.tanh_z)
    u = tl.full((const.ROWS, const.D), 0.0, tl.float32)
    r, free_u = tl.full((const.ROWS, const.D), 1.0, tl.float32), h
    if const.HEADS > 0:
        free_u, raw_r = outputs_at(
            z,
            model.control,
            resident[1],
            model.control_shift_ptr + shift_offset(k, block, const),
            scratch.control_ptr,
            scratch,
            block,
            const,
            TWO=const.HEADS > 1,
            BACKWARD=BACKWARD,
        )
        if const.UNIT > 0:
            free_u *= unit
            if const.UNIT > 1:
                free_u -= h
            free_u = free_u / g
        u = tl.where(is_element, free_u, 0.0)
        if const.BOUND:
            u = bound * tanh(u / bound)
        if const.HEADS > 1:
            raw_r += WIDTH_START
            if const.UNIT > 0:
                raw_r += tl.log(unit / g)
            r = tl.where(is_element, tl.sigmoid(raw_r), 1.0)
    return StepCoefficients(h, g, u, r, free_u)


@triton.jit
def shift_offset(k, block, const):
    """Locate the control's shift of step k."""
    return 0 if const.ONE_SHIFT else k * block.rows * block.width


@triton.jit
def step_to(z, at, dw, span, block):
    """Take a step of `span` (ROWS,) from z with its coefficients `at`; return (ROWS, D)."""
    end = z + (at.h + at.g * at.u) * span[:, None] + at.r * at.g * dw
    return tl.where(block.is_element, end, 0.0)


@triton.jit
def coefficients_backward(grad, grad_energy, grad_width, at, here, dw, step, numbers, const):
    """Compute the gradients of a step's inputs: network outputs, g's terms, and z.

    `grad` (ROWS, D) is the next state's gradient, `grad_energy` and `grad_width` (ROWS, 1) those of
    the energy and the width's KL, `step` (ROWS, 1) the step's length. z's gradient is that through
    g alone, `here`.
    """
    g, u, r, unit, bound = at.g, at.u, at.r, numbers.unit, numbers.bound
    to_h = grad * step
    to_g = grad * (u * step + r * dw)
    to_control, to_width = to_h, to_h
    if const.HEADS > 0:
        to_control = (grad * g + grad_energy * u) * step
        if const.BOUND:
            to_control *= 1 - (u / bound) * (u / bound)
        if const.UNIT > 0:
            to_free = to_control
            to_control = to_free * unit / g
            to_g -= to_free * at.free_u / g
            if const.UNIT > 1:
                to_h -= to_free / g
        if const.HEADS > 1:
            narrowing = grad_width * (r - 1 / tl.maximum(r, 1e-9))
            to_width = grad * g * dw + tl.where(step > 0, narrowing, 0.0)
            to_width *= r * (1 - r)
            if const.UNIT > 0:
                to_g -= to_width / g
    to_level, to_slope, to_curve, to_z = diffusion_backward(to_g, to_h, here, const)
    return CoefficientGradients(to_h, to_control, to_width, to_level, to_slope, to_curve, to_z)


@triton.jit
def diffusion_backward(to_g, to_h, here, const):
    """Compute the gradients of g's level, slope and curve and of the state from those of g and h.

    Each is (ROWS, D).
    """
    to_level, to_slope, to_curve, to_z = to_g, to_g, to_g, to_g
    if const.DIFFUSION > 0:
        flat = 1 - here.tanh_z * here.tanh_z
        to_level, to_tilt, to_tanh = to_g * here.rise, 0.0, 0.0
        if const.DIFFUSION > 1:  # h has 1/2 g rise tilt flat
            half = 0.5 * to_h * here.rise
            to_level += half * here.tilt * flat * (here.rise + here.g * (1 - here.rise))
            to_tilt = half * here.g * flat
            to_tanh = 2 * (to_tilt * here.curve - half * here.g * here.tilt * here.tanh_z)
        to_slope = to_level * here.tanh_z + to_tilt
        to_curve = (to_level * here.tanh_z + 2 * to_tilt) * here.tanh_z
        to_z = (to_level * here.tilt + to_tanh) * flat
    return to_level, to_slope, to_curve, to_z

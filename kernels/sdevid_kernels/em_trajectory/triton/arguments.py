"""What the chain's kernels hand to their helpers, under names.

Everything lies row-major. A program works on a block of ROWS rows, padded to D components.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Constants(NamedTuple):
    """What a kernel is compiled for.

    Inside a kernel the fields are plain numbers, not `tl.constexpr`: `tl.full` takes them as a
    shape where `tl.zeros` does not, and `tl.static_range` takes them wrapped.
    """

    HEADS: int  # 0: the prior, 1: a control, 2: a control and a width
    DIFFUSION: int  # 0: g is given, 1: it depends on the state, 2: so with Stratonovich's drift
    UNIT: int  # 0: the control has no unit, 1: it is a motion beside the drift, 2: in its place
    BOUND: bool  # whether |u| is bounded
    DRAWN: bool  # whether the noise is drawn here
    RECOMPUTE: bool  # whether states between anchors are solved again on the way back
    ONE_SHIFT: bool  # whether the control's shift is the same at every step
    RESIDENT: bool  # whether the forward pass loads its weights once; a TILE then is a whole layer
    LAYERS: int  # hidden layers of each network
    D: int  # components, padded to a power of 2
    ROWS: int  # rows of a block
    TILE: int  # hidden units at a time
    K: int  # inputs of a product at a time
    F: int  # edge of a tile of weight gradients
    PRECISION: str  # of tl.dot


class Numbers(NamedTuple):
    """The definition's numbers: g's floor and start, the control's unit and bound."""

    floor: Any
    start: Any
    unit: Any
    bound: Any


class MLPStack(NamedTuple):
    """A SiLU network's weights (out, in) and biases (out,), but for the first layer's shift."""

    first_ptr: Any
    inner: Any  # (weight, bias) of each further hidden layer
    last_ptr: Any
    bias_ptr: Any


class ResidentWeights(NamedTuple):
    """A network's weights as blocks, loaded before the first step: (inputs, units) each.

    What a network does not have repeats what is there.
    """

    first: Any  # (D, TILE)
    second: Any  # (TILE, TILE)
    third: Any
    second_bias: Any  # (TILE,)
    third_bias: Any
    last: Any  # (TILE, D)
    last_width: Any


class Model(NamedTuple):
    """The networks, their first layers' shifts, and g or its three terms, (rows, size)."""

    drift: MLPStack
    control: MLPStack | None
    drift_shift_ptr: Any  # (rows, width)
    control_shift_ptr: Any  # (steps or 1, rows, width)
    level_ptr: Any
    slope_ptr: Any
    curve_ptr: Any


class Noise(NamedTuple):
    """dW (steps, rows, size), or the key by which it is drawn."""

    dw_ptr: Any
    serial_ptr: Any  # (clips,)
    cell_ptr: Any  # (steps, clips)
    seed: Any
    clips: Any
    tokens: Any  # rows a clip


class TimeGrid(NamedTuple):
    """The steps of a chain, and which of its points are saved."""

    dt_ptr: Any  # (steps, rows)
    saved_index_ptr: Any  # (steps + 1,), -1 where a point is not saved
    steps: Any
    chunk: Any  # steps between two anchors


class ChainInputs(NamedTuple):
    """All that a step reads: the model, its noise and the time grid."""

    model: Model
    numbers: Numbers
    noise: Noise
    grid: TimeGrid


class Block(NamedTuple):
    """A program's rows; `rows` are those of all programs."""

    row: Any  # (ROWS,)
    is_row: Any  # (ROWS,)
    is_element: Any  # (ROWS, D)
    component: Any  # (D,)
    rows: Any
    size: Any  # components
    width: Any  # hidden units


class Scratch(NamedTuple):
    """A program's own memory: states, and what each network's hidden layers leave behind.

    A network has arrays of `area` rows: each layer's values, then (for the backward pass) their
    slopes, then their pre-activations' gradients, then the outputs' gradients.
    """

    states_ptr: Any
    drift_ptr: Any
    control_ptr: Any
    row: Any  # this step's rows in each array, (ROWS,)
    area: Any


class Gradients(NamedTuple):
    """Where gradients come from, and where those of the inputs go as the steps are walked back."""

    states_ptr: Any  # (points, rows, size), read
    level_ptr: Any
    slope_ptr: Any
    curve_ptr: Any
    drift_shift_ptr: Any
    control_shift_ptr: Any

"""What the launches of em_trajectory's two kernels share."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from sdevid_kernels.em_trajectory import SHARED
from sdevid_kernels.em_trajectory.reference import Diffusion, Posterior
from sdevid_kernels.em_trajectory.triton.arguments import Constants, MLPStack, Model, Numbers

MOST_ROWS = 16  # of a block: those of a matrix core's product
TILES = {"TILE": 32, "K": 32, "F": 64}
OPTIONS = {"num_warps": 8, "num_stages": 1}  # two stages spill more: docs/gpu.md
CHUNK = 8  # steps whose hidden layers a program holds at a time
MOST_SUMS = 2**24  # elements of all programs' weight gradients, at most


class LaunchForm(NamedTuple):
    """What a launch is about, as the operators' schemas take it."""

    seed: int
    numbers: list[float]  # floor, start, unit, bound (0: none)
    flags: list[int]  # HEADS, DIFFUSION and UNIT of arguments.Constants
    points: int  # saved
    chunk: int  # steps between two anchors


class Launch(NamedTuple):
    """What a forward and a backward launch of the same chain share."""

    drift: list[Tensor]
    control: list[Tensor]
    diffusion: list[Tensor]
    dt: Tensor
    dw: Tensor | None
    serial: Tensor
    cell: Tensor
    saved_index: Tensor
    form: LaunchForm

    @property
    def depth(self) -> int:
        """Hidden layers of each network."""
        return (len(self.drift) - 2) // 2

    def arguments(self, z: Tensor, recompute: bool, keep_weights: bool) -> dict[str, Any]:
        """Name the kernels' arguments, for states like `z` (rows, size).

        With `keep_weights` the program keeps all weights in shared memory, where they fit.
        """
        return {
            "model": self._model(),
            "numbers": Numbers(*self.form.numbers),
            "const": self._constants(z, recompute, keep_weights),
            "dw_ptr": self.dw,
            "serial_ptr": self.serial,
            "cell_ptr": self.cell,
            "seed": self.form.seed,
            "clips": len(self.serial),
            "tokens": len(z) // len(self.serial),
            "dt_ptr": self.dt,
            "saved_index_ptr": self.saved_index,
            "rows": len(z),
            "size": z.shape[1],
            "width": len(self.drift[0]),
            "steps": len(self.dt),
            **OPTIONS,
        }

    def _model(self) -> Model:
        return Model(
            drift=stack_of(self.drift),
            control=stack_of(self.control) if self.control else None,
            drift_shift_ptr=self.drift[1],
            control_shift_ptr=self.control[1] if self.control else self.drift[1],
            level_ptr=self.diffusion[0],
            slope_ptr=self.diffusion[1] if len(self.diffusion) > 1 else None,
            curve_ptr=self.diffusion[2] if len(self.diffusion) > 1 else None,
        )

    def _constants(self, z: Tensor, recompute: bool, keep_weights: bool) -> Constants:
        heads, diffusion, unit = self.form.flags
        rows, width = block_rows(len(z), processors(z.device)), len(self.drift[0])
        dot = precision("hip" if torch.version.hip else z.device.type)
        tile = max(16, triton.next_power_of_2(width))
        d = max(16, triton.next_power_of_2(z.shape[1]))
        needed = resident_bytes(d, tile, self.depth, heads, dot)
        resident = keep_weights and rows < MOST_ROWS and needed <= shared_memory(z.device)
        return Constants(
            HEADS=heads,
            DIFFUSION=diffusion,
            UNIT=unit,
            BOUND=self.form.numbers[3] > 0,
            DRAWN=self.dw is None,
            RECOMPUTE=recompute,
            ONE_SHIFT=bool(self.control) and len(self.control[1]) == 1 < len(self.dt),
            RESIDENT=resident,
            LAYERS=self.depth,
            D=d,
            ROWS=rows,
            PRECISION=dot,
            **(TILES | {"TILE": tile} if resident else TILES),
        )


def processors(device: torch.device) -> int:
    """Count the multiprocessors of a device; a CPU, where Triton interprets, is one."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def shared_memory(device: torch.device) -> int:
    """Return the bytes of shared memory that a block may keep weights in.

    None on a CPU, nor with ROCm, where Triton keeps them in registers and spills those.
    """
    if device.type != "cuda" or torch.version.hip:
        return 0
    about = torch.cuda.get_device_properties(device)
    return int(getattr(about, "shared_memory_per_block_optin", SHARED))


def block_rows(rows: int, multiprocessors: int) -> int:
    """Choose the rows of a block: as many as leave no multiprocessor without one, 1 to 16.

    A matrix core's product has 16 rows; what a smaller block leaves of it is lost, but each program
    has less to do between two products, and more programs run at once.
    """
    each = MOST_ROWS
    while each > 1 and triton.cdiv(rows, each) < multiprocessors:
        each //= 2
    return each


def resident_bytes(d: int, tile: int, layers: int, heads: int, dot: str) -> int:
    """Bound the shared memory of a block that keeps all weights, in bytes.

    `d` and `tile` are components and hidden units, padded; `tf32x3` keeps the two parts of each.
    Beside the weights, hidden values pass from layer to layer.
    """
    networks, outputs = 1 + (heads > 0), 1 + heads
    weights = d * tile * (networks + outputs) + networks * (layers - 1) * tile * tile
    values = MOST_ROWS // 2 * max(d, tile)
    return 4 * (weights + values) * (2 if dot == "tf32x3" else 1)


def precision(backend: str) -> str:
    """Choose how `tl.dot` multiplies 32-bit floats on a backend of Triton, "cuda" or "hip".

    NVIDIA's tensor cores take three products of TF32 for one of float32, or one where PyTorch may
    use TF32. AMD's matrix cores take float32 itself, and no `tf32x3`; so does a CPU.
    """
    if backend != "cuda":
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


def stack_of(network: list[Tensor]) -> MLPStack:
    """Gather a network's tensors but for its shift, as the kernels take them."""
    first, _, *inner, last, bias = network
    return MLPStack(first, tuple(zip(inner[::2], inner[1::2], strict=True)), last, bias)


def span_of(network: list[Tensor]) -> int:
    """Count the elements of a network's weight gradients: of all but its shift."""
    return sum(x.numel() for index, x in enumerate(network) if index != 1)


def gradient_programs(rows: int, span: int, multiprocessors: int) -> int:
    """Return programs of the backward pass, each with `span` elements of weight gradients."""
    blocks: int = triton.cdiv(rows, block_rows(rows, multiprocessors))
    return min(blocks, multiprocessors, max(1, MOST_SUMS // span))


def form_of(
    diffusion: Tensor | Diffusion,
    posterior: Posterior | None,
    seed: int,
    saved: tuple[int, ...] | None,
    steps: int,
) -> LaunchForm:
    """Say what a launch is about.

    Where all states are saved, there are no anchors. Where the control's shifts differ from step to
    step, which takes more memory than the states, every state is an anchor, and none is solved
    again.
    """
    floor, start, curved = 0.0, 0.0, 0
    if isinstance(diffusion, Diffusion):
        floor, start, curved = diffusion.floor, diffusion.start, 1 + diffusion.stratonovich
    heads, unit_form, bound, unit = 0, 0, 0.0, 1.0
    if posterior is not None:
        reading = posterior.reading
        heads, bound = 1 + reading.width, reading.bound or 0.0
        if reading.unit is not None:
            unit_form, unit = 1 + reading.own, reading.unit
    points = steps + 1 if saved is None else len(saved)
    one_shift = posterior is None or len(posterior.shifts) == 1
    chunk = 0 if saved is None else min(steps, CHUNK) if one_shift else 1
    return LaunchForm(seed, [floor, start, unit, bound], [heads, curved, unit_form], points, chunk)

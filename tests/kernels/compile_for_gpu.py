"""Compiles a kernel for a GPU that need not be there: `compile_for_gpu.py MODULE FUNCTION JSON`.

The JSON object gives constant arguments and options; prints the bytes of shared memory that a block
takes, and the registers and the bytes of spills of a thread.
"""

import importlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from sdevid_kernels.em_trajectory.triton.arguments import Constants, MLPStack, Model, Numbers
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

INTEGERS = ("size", "groups", "rows", "steps", "chunk", "clips", "tokens", "tag", "counters")
LONG = {"seed": "i64", "serial_ptr": "*i64", "cell_ptr": "*i64", "saved_index_ptr": "*i64"}
SCALARS = dict.fromkeys(INTEGERS, "i32") | LONG
CHAIN = "em_trajectory.triton.passes"


def of_chain(const: Constants) -> dict[str, object]:
    """The types of what em_trajectory's kernels take otherwise: tuples, and `width` as a number."""
    layer = ("*fp32", "*fp32")
    stack = MLPStack("*fp32", (layer,) * (const.LAYERS - 1), "*fp32", "*fp32")
    model = Model(
        drift=stack,
        control=stack if const.HEADS else "constexpr",
        drift_shift_ptr="*fp32",
        control_shift_ptr="*fp32",
        level_ptr="*fp32",
        slope_ptr="*fp32" if const.DIFFUSION else "constexpr",
    )
    numbers = dict.fromkeys(("width", "work_stride", "total_stride"), "i32")
    return numbers | {"model": model, "numbers": Numbers(*["fp32"] * 4)}


def absent(signature: object, path: tuple[int, ...]) -> dict[tuple[int, ...], None]:
    """Paths to what a tuple does not hold."""
    if signature == "constexpr":
        return {path: None}
    if not isinstance(signature, tuple):
        return {}
    inner = [absent(part, (*path, i)) for i, part in enumerate(signature)]
    return {key: None for part in inner for key in part}


def main() -> None:
    module, name, flags = sys.argv[1:]
    constants = json.loads(flags)
    options = {key: constants.pop(key) for key in ("num_stages", "num_warps") if key in constants}
    kernel = getattr(importlib.import_module(f"sdevid_kernels.{module}"), name)
    types = SCALARS
    if module == CHAIN:
        const = Constants(**{key: constants.pop(key) for key in Constants._fields})
        types, constants = SCALARS | of_chain(const), constants | {"const": const}
    signature, values = {}, {}
    for i, argument in enumerate(kernel.arg_names):
        constant = argument in constants
        signature[argument] = "constexpr" if constant else types.get(argument, "*fp32")
        values |= {(i,): constants[argument]} if constant else absent(signature[argument], (i,))
    source = ASTSource(kernel, signature, constexprs=values)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    print(compiled.metadata.shared, *resources(compiled.asm["ptx"]))


def resources(ptx: str) -> tuple[int, int]:
    """Registers of a thread, and bytes that it spills, after the assembler that Triton brings."""
    assembler = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [str(assembler), "-v", "--gpu-name=sm_90a", str(path), "-o", f"{path}.cubin"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", report)
    spilled = re.search(r"(\d+) bytes spill stores", report)
    return int(registers[1]), int(spilled[1])


if __name__ == "__main__":
    main()

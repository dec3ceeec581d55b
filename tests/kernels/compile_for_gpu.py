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
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

INTEGERS = ("size", "groups", "rows", "steps", "chunk", "clips", "tokens", "tag", "counters")
LONG = {"seed": "i64", "serial": "*i64", "place": "*i64", "kept": "*i64"}
SCALARS = dict.fromkeys(INTEGERS, "i32") | LONG


def of_chain(flags: dict[str, object]) -> dict[str, object]:
    """The types of what em_trajectory's kernels take otherwise: tuples, and `width` as a number."""
    network = ("*fp32", (("*fp32", "*fp32"),) * (flags["L"] - 1), "*fp32", "*fp32")
    numbers = dict.fromkeys(("width", "span_of_work", "span_of_total"), "i32")
    control = network if flags["HEADS"] else "constexpr"
    slope = "*fp32" if flags["BENDS"] else "constexpr"
    return numbers | {
        "model": (network, control, "*fp32", "*fp32", "*fp32", slope),
        "numbers": ("fp32",) * 4,
    }


def absent(signature: object, place: tuple[int, ...]) -> dict[tuple[int, ...], None]:
    """The places of what a tuple does not hold."""
    if signature == "constexpr":
        return {place: None}
    if not isinstance(signature, tuple):
        return {}
    found = [absent(part, (*place, i)) for i, part in enumerate(signature)]
    return {key: None for part in found for key in part}


def main() -> None:
    module, name, given = sys.argv[1:]
    constants = json.loads(given)
    options = {key: constants.pop(key) for key in ("num_stages", "num_warps") if key in constants}
    kernel = getattr(importlib.import_module(f"sdevid_kernels.{module}"), name)
    types = SCALARS | (of_chain(constants) if module == "em_trajectory.triton.passes" else {})
    signature, places = {}, {}
    for i, argument in enumerate(kernel.arg_names):
        constant = argument in constants
        signature[argument] = "constexpr" if constant else types.get(argument, "*fp32")
        places |= {(i,): constants[argument]} if constant else absent(signature[argument], (i,))
    source = ASTSource(kernel, signature, constexprs=places)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    print(made.metadata.shared, *resources(made.asm["ptx"]))


def resources(ptx: str) -> tuple[int, int]:
    """Registers of a thread, and bytes that it spills, after the assembler that Triton brings."""
    assembler = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [str(assembler), "-v", "--gpu-name=sm_90a", str(path), "-o", f"{path}.cubin"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = re.search(r"Used (\d+) registers", said)
    spilled = re.search(r"(\d+) bytes spill stores", said)
    return int(registers[1]), int(spilled[1])


if __name__ == "__main__":
    main()

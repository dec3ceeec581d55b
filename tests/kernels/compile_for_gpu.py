"""Compiles kernels for a GPU that need not be there: `compile_for_gpu.py TARGET < CASES`.

TARGET is sm_80, sm_90a or gfx942. CASES is a JSON list of [module, function, constants and options,
types that are no 32-bit float]. Prints of each case, as a line of JSON, what a thread takes:
registers, what it spills (bytes; registers on gfx942) and, on NVIDIA's, instructions; and the bytes
of shared memory that a block takes, what stays there and how warps share a product.
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
from sdevid_kernels.em_trajectory.triton.launch import precision
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90a": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
INTEGERS = ("size", "groups", "rows", "steps", "chunk", "clips", "tokens", "tag", "counters")
LONG = {"seed": "i64", "serial_ptr": "*i64", "cell_ptr": "*i64", "saved_index_ptr": "*i64"}
SCALARS = dict.fromkeys(INTEGERS, "i32") | LONG
CHAIN = "em_trajectory.triton.passes"
STEP = "em_step.kernel"
ALIGNED = [["tt.divisibility", 16]]  # bytes of an array, as PyTorch aligns it


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
        curve_ptr="*fp32" if const.DIFFUSION else "constexpr",
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


def source_of(module: str, name: str, constants: dict, types: dict) -> ASTSource:
    """The kernel with the types of its arguments; em_step's arrays are aligned."""
    kernel = getattr(importlib.import_module(f"sdevid_kernels.{module}"), name)
    types = SCALARS | {k: tuple(v) if isinstance(v, list) else v for k, v in types.items()}
    if module == CHAIN:
        const = Constants(**{key: constants.pop(key) for key in Constants._fields})
        types, constants = types | of_chain(const), constants | {"const": const}
    signature, values, attributes = {}, {}, {}
    for i, argument in enumerate(kernel.arg_names):
        constant = argument in constants
        signature[argument] = "constexpr" if constant else types.get(argument, "*fp32")
        values |= {(i,): constants[argument]} if constant else absent(signature[argument], (i,))
        is_array = not constant and str(signature[argument]).startswith("*")
        if module == STEP and (is_array or argument in ("size", "groups")):
            attributes[(i,)] = ALIGNED
    return ASTSource(kernel, signature, constexprs=values, attrs=attributes)


def main() -> None:
    target = sys.argv[1]
    for module, name, flags, types in json.load(sys.stdin):
        options = {key: flags.pop(key) for key in ("num_stages", "num_warps") if key in flags}
        if module == CHAIN:
            flags |= {"PRECISION": precision(TARGETS[target].backend)}
        source = source_of(module, name, flags, types)
        compiled = triton.compile(source, target=TARGETS[target], options=options)
        found = {"shared": compiled.metadata.shared, **by_layouts(compiled.asm["ttgir"])}
        if "ptx" in compiled.asm:
            found |= by_assembler(compiled.asm["ptx"], target)
        else:
            found |= by_metadata(compiled.asm["amdgcn"])
        print(json.dumps(found), flush=True)


def by_layouts(ir: str) -> dict[str, object]:
    """Blocks in shared memory from before the first loop on; how warps share a product."""
    before = ir.split("scf.for")[0]
    warps = re.search(r"#mma = .*warpsPerCTA = (\[[\d, ]+\])", ir)
    return {
        "kept": len(re.findall(r"ttg\.local_alloc %", before)),
        "warps": json.loads(warps[1]) if warps else None,
    }


def by_assembler(ptx: str, target: str) -> dict[str, int]:
    """Registers, bytes spilled and instructions, by the tools that Triton brings."""
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.TemporaryDirectory() as folder:
        path, binary = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        path.write_text(ptx)
        command = [str(tools / "ptxas"), "-v", f"--gpu-name={target}", str(path), "-o", str(binary)]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        command = [str(tools / "nvdisasm"), "-c", str(binary)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    instructions = re.findall(r"/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w+)", listing)
    return {
        "registers": int(re.search(r"Used (\d+) registers", report)[1]),
        "spilled": int(re.search(r"(\d+) bytes spill stores", report)[1]),
        "instructions": sum(word != "NOP" for word in instructions),
    }


def by_metadata(assembly: str) -> dict[str, int]:
    """Vector registers and how many of them are spilled, by what the assembly says of itself."""
    names = {"registers": "vgpr_count", "spilled": "vgpr_spill_count"}
    return {key: int(re.search(rf"\.{n}:\s+(\d+)", assembly)[1]) for key, n in names.items()}


if __name__ == "__main__":
    main()

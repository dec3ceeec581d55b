"""Compiles a kernel for a GPU that need not be there: `compile_for_gpu.py MODULE FUNCTION JSON`.

The JSON object gives constant arguments; prints the shared memory that a block takes.
"""

import importlib
import json
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

INTEGERS = ("size", "groups", "rows", "width", "steps", "clips", "tokens", "tag", "counters")
LONG = {"seed": "i64", "serial": "*i64", "place": "*i64", "bound": "fp32"}
SCALARS = dict.fromkeys(INTEGERS, "i32") | LONG


def main() -> None:
    module, name, given = sys.argv[1:]
    constants = json.loads(given)
    stages = constants.pop("num_stages", 2)
    kernel = getattr(importlib.import_module(f"sdevid_kernels.{module}.kernel"), name)
    fused = module == "em_trajectory"  # there `width` is a number, elsewhere a tensor
    scalars = SCALARS if fused else {k: v for k, v in SCALARS.items() if k != "width"}
    signature = {
        argument: "constexpr" if argument in constants else scalars.get(argument, "*fp32")
        for argument in kernel.arg_names
    }
    places = {(kernel.arg_names.index(key),): value for key, value in constants.items()}
    source = ASTSource(kernel, signature, constexprs=places)
    target, options = GPUTarget("cuda", 90, 32), {"num_stages": stages}
    print(triton.compile(source, target=target, options=options).metadata.shared)


if __name__ == "__main__":
    main()

"""Compiles kernels that were run by Triton's interpreter, as machine code for GPUs: no GPU is needed for that.

    python compile_kernels.py < LINES

Each line is JSON as `line_of` writes it; for each, and each generation of GPUs, a line comes out.
"""

import inspect
import json
import sys
import warnings
from importlib import import_module

import torch

GENERATIONS = (80, 90)  # compute capability times ten: A100, H100
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.bool: "i1", torch.int64: "i64", torch.uint8: "u8"}


def line_of(function, args, named):
    """What has to be known to compile a kernel for these arguments."""
    parameters = inspect.signature(function).parameters
    given = dict(zip(parameters, args, strict=False)) | {name: named[name] for name in parameters if name in named}
    fixed = {name for name, parameter in parameters.items() if "constexpr" in str(parameter.annotation)}
    types = {name: "constexpr" if name in fixed else _type(value) for name, value in given.items()}
    return json.dumps(
        {
            "module": function.__module__,
            "kernel": function.__name__,
            "types": {name: types[name] for name in parameters},
            "constants": {name: given[name] for name in fixed},
            "options": {name: value for name, value in named.items() if name not in parameters},
        },
        sort_keys=True,
    )


def _type(value):
    if isinstance(value, torch.Tensor):
        return "*" + NAMES[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def main():
    """Compile what is asked for."""
    warnings.simplefilter("ignore")  # of settings that a later Triton will have other defaults for
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    for line in sys.stdin:
        asked = json.loads(line)
        kernel = getattr(import_module(asked["module"]), asked["kernel"])
        types = {name: asked["types"][name] for name in kernel.arg_names}
        for generation in GENERATIONS:
            source = ASTSource(kernel, types, constexprs=asked["constants"])
            made = triton.compile(source, target=GPUTarget("cuda", generation, 32), options=asked["options"])
            sys.stdout.write(f"{asked['kernel']} {generation} {len(made.asm['cubin'])} bytes\n")


if __name__ == "__main__":
    main()

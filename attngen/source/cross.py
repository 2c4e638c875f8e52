"""Cross-compiling a generated kernel for any target, on a machine with or without a GPU."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attngen.config import Config
from attngen.errors import AttngenError
from attngen.plan.boxes import boxes, is_gluon, swizzle_bytes
from attngen.plan.forward import ForwardPlan
from attngen.plan.hopper import ENTRY_REGISTERS, ROWS
from attngen.plan.hopper_window import MOST_REGISTERS
from attngen.plan.work import ELEMENT_BYTES
from attngen.source.module import load_source
from attngen.source.render import Source, render
from attngen.target import Target


class CompileError(AttngenError):
    """The compiler refused a kernel, or it cannot run on the target."""


@dataclass(frozen=True)
class Resources:
    """What the compiler says a program needs."""

    registers: int  # a thread
    spills: int  # bytes of spill stores and loads a thread
    shared: int  # bytes a program
    num_warps: int
    seconds: float  # to compile


def compile_source(plan: ForwardPlan, config: Config, target: Target) -> Resources:
    """Compile the kernel of ``plan`` and ``config`` for ``target``: what it needs, or CompileError."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.experimental.gluon._runtime import GluonASTSource

    source = render(plan, config)
    function = load_source(source)
    started = time.perf_counter()
    try:
        made_of = GluonASTSource if is_gluon(config) else ASTSource
        ast = made_of(fn=function, **_signature(plan, config, source, function))
        compiled = triton.compile(
            ast,
            target=GPUTarget(target.backend, target.arch, target.warp_size),
            options=compile_options(config),
        )
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise CompileError(f"{type(error).__name__}: {lines[-1] if lines else error}"[:500]) from error
    registers, spills = _registers(compiled, target)
    return Resources(
        registers, spills, compiled.metadata.shared, compiled.metadata.num_warps, time.perf_counter() - started
    )


def compile_options(config: Config) -> dict[str, Any]:
    """The compiler's own options among the tunables."""
    if config["schedule"] == "hopper_window":
        return {"num_warps": 4, "maxnreg": config.get("maxnreg") or MOST_REGISTERS}
    if config["schedule"] == "hopper":
        return {"num_warps": 4, "maxnreg": ENTRY_REGISTERS[int(config["BLOCK_M"] or 0) // ROWS]}
    options = {"num_warps": config["num_warps"], "num_stages": config["num_stages"]}
    if config.get("maxnreg"):
        options["maxnreg"] = config["maxnreg"]
    return options


_ELEMENTS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float8_e4m3": "fp8e4nv"}


def _signature(plan: ForwardPlan, config: Config, source: Source, function: Any) -> dict[str, Any]:
    """Types, constants and alignments as a call with contiguous tensors would give them."""
    dtype = plan.kind.dtype
    types: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], list] = {}
    scalars = {f"{argument.name}_value" for argument in plan.arguments if argument.shape == "scalar"}
    described = boxes(plan, config)
    for position, name in enumerate(source.parameters + source.constexprs):
        aligned = False
        if name in source.constexprs:
            types[name] = "constexpr"
            constants[(position,)] = config[name]
        elif name in ("offsets_ptr", "key_range_ptr"):
            types[name] = "constexpr"
            constants[(position,)] = None
        elif name in described:
            box = described[name][1]
            held = plan.kind.out_dtype if described[name][0] == "out" else dtype
            layout = f",{_shared_layout(box[-1], held)}" if is_gluon(config) else ""
            types[name] = f"tensordesc<{_ELEMENTS[held]}{list(box)}{layout}>"
        elif name == "ticket_ptr":
            types[name], aligned = "*i32", True
        elif name.endswith("_ptr"):
            elements = {"q_ptr": dtype, "k_ptr": dtype, "v_ptr": dtype, "out_ptr": plan.kind.out_dtype}
            types[name] = "*i32" if name == "prefix_ptr" else f"*{_ELEMENTS[elements.get(name, 'float32')]}"
            aligned = True
        elif name in scalars:
            types[name] = "fp32"
        else:
            types[name] = "i32"
            aligned = name.startswith("stride_")
        if aligned:
            attributes[(position,)] = [["tt.divisibility", 16]]
    return {"signature": types, "constexprs": constants, "attrs": attributes}


def _shared_layout(width: int, dtype: str) -> str:
    """How a box lies in shared memory, as Gluon's descriptors spell it."""
    element = ELEMENT_BYTES[dtype]
    return (
        f"NVMMASharedLayout(swizzle_byte_width={swizzle_bytes(width, element)}, element_bitwidth={8 * element}, "
        "rank=4, transposed=False, fp4_padded=False, cga_layout=[])"
    )


def _registers(compiled: Any, target: Target) -> tuple[int, int]:
    """Registers and spilled bytes a thread."""
    if target.backend == "hip":
        return _amd_registers(compiled.asm["amdgcn"])
    from triton.backends.nvidia.compiler import get_ptxas

    arch = f"sm_{target.arch}a" if int(target.arch) >= 90 else f"sm_{target.arch}"
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder, "kernel.ptx")
        ptx.write_text(compiled.asm["ptx"])
        command = [
            get_ptxas(int(target.arch)).path,
            "-v",
            f"--gpu-name={arch}",
            str(ptx),
            "-o",
            str(Path(folder, "kernel.o")),
        ]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    report = run.stderr + run.stdout
    used = re.search(r"Used (\d+) registers", report)
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
    if run.returncode or not used:
        raise CompileError(f"ptxas: {report.strip().splitlines()[-1] if report.strip() else 'no report'}"[:500])
    return int(used[1]), sum(int(x) for x in spilled.groups()) if spilled else 0


def _amd_registers(assembly: str) -> tuple[int, int]:
    vgprs = re.search(r"\.vgpr_count:\s+(\d+)", assembly)
    spilled = re.search(r"\.vgpr_spill_count:\s+(\d+)", assembly)
    return int(vgprs[1]) if vgprs else 0, 4 * int(spilled[1]) if spilled else 0

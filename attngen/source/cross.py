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
from attngen.plan import Plan
from attngen.plan.boxes import is_gluon
from attngen.source.module import load_source
from attngen.source.render import Source, render
from attngen.source.types import NOTHING
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


def compile_source(plan: Plan, config: Config, target: Target) -> Resources:
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
        ast = made_of(fn=function, **launch_signature(source, config))
        compiled = triton.compile(
            ast,
            target=GPUTarget(target.backend, target.arch, target.warp_size),
            options=source.options,
        )
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise CompileError(f"{type(error).__name__}: {lines[-1] if lines else error}"[:500]) from error
    registers, spills = _registers(compiled, target)
    return Resources(
        registers, spills, compiled.metadata.shared, compiled.metadata.num_warps, time.perf_counter() - started
    )


def launch_signature(source: Source, config: Config) -> dict[str, Any]:
    """Types, constants and alignments as a call with contiguous tensors would give them."""
    types: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], list] = {}
    for position, (name, kind) in enumerate(zip(source.parameters, source.types, strict=True)):
        types[name] = "constexpr" if kind == NOTHING else kind
        if kind == NOTHING:
            constants[(position,)] = None
        elif kind.startswith("*") or name.startswith("stride_"):
            attributes[(position,)] = [["tt.divisibility", 16]]
    for position, name in enumerate(source.constexprs, len(source.parameters)):
        types[name] = "constexpr"
        constants[(position,)] = config[name]
    return {"signature": types, "constexprs": constants, "attrs": attributes}


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

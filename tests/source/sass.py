"""Machine code of a generated kernel for sm_90: what the assembler warned of, and what its main loops hold."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attngen.config import Config
from attngen.plan import ForwardPlan
from attngen.source import load_source, render
from attngen.source.cross import launch_signature

MATRIX_PRODUCTS = ("HGMMA", "QGMMA")  # of 16-bit and of 8-bit numbers


@dataclass(frozen=True)
class Assembled:
    """One kernel, compiled."""

    report: str  # of ptxas -v
    blocks: tuple[Counter[str], ...]  # of each basic block, how often each instruction is in it
    loops: tuple[Counter[str], ...]  # of each innermost loop with matrix products, how often each instruction is in it

    @property
    def warnings(self) -> list[str]:
        """Numbered remarks of ptxas: that it serialised asynchronous products, above all."""
        return [line for line in self.report.splitlines() if re.search(r"\bC7\d\d\d\b", line)]

    @property
    def spills(self) -> int:
        """Bytes a thread, stores and loads, in loops and outside."""
        pairs = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", self.report)
        return sum(int(n) for pair in pairs for n in pair)


def assemble(plan: ForwardPlan, config: Config) -> Assembled:
    """Compile a Gluon kernel once, listening to the assembler."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.experimental.gluon._runtime import GluonASTSource

    source = render(plan, config)
    function = load_source(source)
    with triton.knobs.nvidia.scope(), contextlib.redirect_stdout(io.StringIO()) as said:
        triton.knobs.nvidia.dump_ptxas_log = True
        compiled: Any = triton.compile(
            GluonASTSource(fn=function, **launch_signature(source, config)),
            target=GPUTarget("cuda", 90, 32),
            options=source.options,
        )
    lines = disassembled(compiled.asm["cubin"], Path(triton.__file__).parent)
    return Assembled(said.getvalue(), tuple(block.opcodes for block in basic_blocks(lines)), main_loops(lines))


def disassembled(cubin: bytes, triton_folder: Path) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        tool = triton_folder / "backends" / "nvidia" / "bin" / "nvdisasm"
        return subprocess.run([tool, "-c", path], capture_output=True, text=True, check=True).stdout.splitlines()


@dataclass
class Block:
    """Instructions without a branch between them, and the blocks that may come next."""

    opcodes: Counter[str]
    following: set[int]


def main_loops(lines: list[str]) -> tuple[Counter[str], ...]:
    """What is in each innermost loop with matrix products. A loop is every way from its head back to its head:
    where the assembler laid its blocks out says little."""
    blocks = basic_blocks(lines)
    before: list[set[int]] = [set() for _ in blocks]
    for n, block in enumerate(blocks):
        for following in block.following:
            before[following].add(n)
    dominators = dominators_of(before)
    loops: dict[int, set[int]] = {}
    for n, block in enumerate(blocks):
        for head in block.following & dominators[n]:
            body, waiting = {head}, [n]
            while waiting:
                if (m := waiting.pop()) not in body:
                    body.add(m)
                    waiting += before[m]
            loops[head] = loops.get(head, set()) | body
    counted = {head: sum((blocks[n].opcodes for n in body), Counter()) for head, body in loops.items()}
    with_products = [head for head, count in counted.items() if any(count[name] for name in MATRIX_PRODUCTS)]
    return tuple(counted[a] for a in with_products if not any(loops[b] < loops[a] for b in with_products))


def basic_blocks(lines: list[str]) -> list[Block]:
    starts: dict[str, int] = {}
    blocks, targets, falls = [Block(Counter(), set())], [set[str]()], [True]

    def begin() -> None:
        if blocks[-1].opcodes:
            blocks.append(Block(Counter(), set()))
            targets.append(set())
            falls.append(True)

    for line in lines:
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            begin()
            starts[label[1]] = len(blocks) - 1
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)(.*)", line):
            predicate, opcode, operands = found.groups()
            blocks[-1].opcodes[opcode] += 1
            if opcode in ("BRA", "BRX", "EXIT", "RET", "JMP"):
                targets[-1] |= set(re.findall(r"\.L_x_\d+", operands))
                conditional = predicate is not None or re.search(r"\bU?P\d\b|\bDIV\b|\bCONV\b", operands)
                falls[-1] = bool(conditional)
                begin()
    for n, block in enumerate(blocks):
        block.following |= {starts[label] for label in targets[n] if label in starts}
        if falls[n] and n + 1 < len(blocks):
            block.following.add(n + 1)
    return blocks


def dominators_of(before: list[set[int]]) -> list[set[int]]:
    """For each block, those that every way to it goes through; blocks that nothing leads to are entries."""
    everything = set(range(len(before)))
    dominators = [everything if before[n] and n else {n} for n in everything]
    changed = True
    while changed:
        changed = False
        for n, reach in enumerate(before):
            if n and reach:
                new = set.intersection(*(dominators[m] for m in reach)) | {n}
                if new != dominators[n]:
                    dominators[n], changed = new, True
    return dominators

"""Selections run in Triton's interpreter, the Hopper schedule's as plain Triton, and what they must come to."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from attngen.config import Config
from attngen.plan.select import SelectPlan, plan_select
from attngen.spec.model import HeadDim, Heads, Kind, Select

TINY = {
    "portable": Config(schedule="portable", BLOCK=128, LIST=256, SAMPLE=128, num_warps=4),
    "hopper": Config(schedule="hopper", BLOCK=128, LIST=256, SAMPLE=64, num_warps=1),
}

# Gluon's words in plain Triton's: layouts are left out, and nothing else is changed.
PLAIN = """import triton
import triton.language as tl


class gl:
    def __getattr__(self, name):
        return getattr(tl, name)

    def arange(self, start, end, layout=None):
        return tl.arange(start, end)

    def BlockedLayout(self, *layout):
        return 0

    def SliceLayout(self, *layout):
        return 0

    def convert_layout(self, x, layout, assert_trivial=False):
        return x

    def associative_scan(self, x, axis, combine):
        return tl.cumsum(x, axis)

    def thread_barrier(self):
        pass

    def inline_asm_elementwise(self, asm, constraints, args, **kw):
        logits, key = args
        return (logits.to(tl.int32, bitcast=True).to(tl.int64) << 32) | key.to(tl.int64)


gl = gl()
"""


def sparse_kind(top_k: int, **forced: int) -> Kind:
    return Kind("sparse", Heads(1, 1), HeadDim(64, 64), causal=True, select=Select(top_k=top_k, **forced))


def selected(
    logits: torch.Tensor, key_first: torch.Tensor, key_end: torch.Tensor, top_k: int, first: int = 0, last: int = 0
) -> torch.Tensor:
    """By a stable sort, row by row."""
    out = torch.full((len(logits), top_k), -1, dtype=torch.int32)
    for row, (a, b) in enumerate(zip(key_first.tolist(), key_end.tolist(), strict=True)):
        a, b = max(a, 0), min(b, logits.shape[1])
        if b - a <= top_k:
            keys = torch.arange(a, max(a, b))
        else:
            middle = logits[row, a + first : b - last].float().cpu()
            ranked = torch.sort(middle, descending=True, stable=True).indices
            chosen = ranked[: top_k - first - last].sort().values + a + first
            keys = torch.cat([torch.arange(a, a + first), chosen, torch.arange(b - last, b)])
        out[row, : len(keys)] = keys.int()
    return out


def run_selection(schedule: str, plan: SelectPlan, *tensors: torch.Tensor, **changes: Any) -> torch.Tensor:
    """In the process of the interpreter."""
    from attngen.op.select import SelectLauncher

    launcher = SelectLauncher(plan, TINY[schedule].replace(**changes))
    if schedule == "hopper":
        head = "from triton.experimental import gluon\nfrom triton.experimental.gluon import language as gl\n"
        assert head in launcher.source.text
        text = launcher.source.text.replace(head, PLAIN).replace("gluon.jit", "triton.jit")
        launcher.source = dataclasses.replace(launcher.source, text=text.replace("counts.type.layout", "0"))
    out = torch.full((len(tensors[0]), plan.top_k), -7, dtype=torch.int32)
    result = launcher(*tensors, out=out)
    assert result is out
    return result


def plan_of(top_k: int, **fields: Any) -> SelectPlan:
    forced = {name: fields.pop(name) for name in ("first", "last") if name in fields}
    return plan_select(sparse_kind(top_k, **forced), **fields)

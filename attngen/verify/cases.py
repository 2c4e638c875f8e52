"""The sizes that a kernel is verified at: square, ragged, short, longer than any window, padded, and empty rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from attngen.inputs import make_inputs
from attngen.plan import Plan
from attngen.report.decided import reach
from attngen.spec.model import Compress, Heads, Kind, Select, Window

INTERPRETED_REACH = 100  # windows and chunks are cut to this many keys where every element costs microseconds
INTERPRETED_KV_HEADS = 2
INTERPRETED_STRIDE = 4
INTERPRETED_BLOCK = 16
INTERPRETED_GROUP = 16  # query heads that share a list's keys
INTERPRETED_TOP_K = 32


@dataclass(frozen=True)
class Case:
    """One set of sizes; ``padded`` gives each sequence its own range of valid keys, the last one none."""

    batch: int
    seq_q: int
    seq_k: int
    padded: bool = False

    def __str__(self) -> str:
        return f"{self.batch} x {self.seq_q} x {self.seq_k}{' padded' if self.padded else ''}"

    def inputs(self, kind: Kind, device: str, heads: tuple[int, int] | None = None) -> dict[str, Any]:
        """Keywords of a forward kernel's call at these sizes."""
        inputs = make_inputs(kind, self.batch, self.seq_q, self.seq_k, device=device, seed=self.seq_k, heads=heads)
        return inputs | self.placed(device, documents=len(inputs.get("cu_seqlens_q", "")) - 1)

    def placed(self, device: str, documents: int = -1) -> dict[str, torch.Tensor]:
        """The keywords that say which keys are valid, of each sequence or packed document."""
        if not self.padded:
            return {}
        count = self.batch if documents < 0 else documents
        ranges = [[min(3 + n, self.seq_k), max(self.seq_k - 7, 0)] for n in range(count)]
        ranges[-1] = [self.seq_k, self.seq_k]  # no valid key: every row of this sequence must be empty
        return {"key_range": torch.tensor(ranges, dtype=torch.int32, device=device)}


LONG, INTERPRETED_LONG = Case(1, 200, 70001), Case(1, 5, 9001)


def cases_of(plan: Plan, seqs: tuple[int, ...], interpret: bool) -> list[Case]:
    """The sizes for one kernel; a selection also has rows that outgrow its lists of candidates."""
    cases = interpreted_cases(seqs) if interpret else gpu_cases(plan.kind, seqs)
    long = [INTERPRETED_LONG if interpret else LONG] if plan.kernel == "select" and not seqs else []
    return [*cases, *long]


def gpu_cases(kind: Kind, seqs: tuple[int, ...] = ()) -> list[Case]:
    """The sizes for a GPU; ``seqs`` are a user's own lengths instead."""
    if seqs:
        return [Case(1, seq, seq) for seq in seqs]
    listed = 0 if kind.select is None else _keys_of_list(kind.select)
    # Keys, so that every query of the ragged case has left the first window, and sees more than its list holds.
    beyond = max(4097, reach(kind) + 1213, listed + 1213)
    return [Case(2, 1024, 1024), Case(1, 1111, beyond), Case(2, 333, 190, padded=True), Case(3, 1, 777)]


def _keys_of_list(select: Select) -> int:
    return (select.top_k or 0) if select.blocks is None else select.blocks.size * select.blocks.top_k


def interpreted_cases(seqs: tuple[int, ...] = ()) -> list[Case]:
    """The sizes for the interpreter."""
    if seqs:
        return [Case(1, seq, seq) for seq in seqs]
    return [Case(1, 130, 130), Case(1, 37, 203), Case(2, 70, 41, padded=True), Case(1, 1, 77)]


def shortened(kind: Kind) -> Kind:
    """The same kind in float16, or still FP8, with windows, chunks, prefixes and lists cut so that small sizes reach
    edges; one that selects, or has branches, has few heads."""
    if not kind.branches:
        return _cut(kind, few_heads=kind.select is not None)
    branches = tuple(_cut(branch, few_heads=True) for branch in kind.branches)
    return replace(_cut(kind, few_heads=True), branches=branches)


def _cut(kind: Kind, *, few_heads: bool) -> Kind:
    def cut(length: int | None, most: int = INTERPRETED_REACH) -> int | None:
        return None if length is None else min(length, most)

    window, compress, heads = kind.window, kind.compress, kind.heads
    if few_heads:
        kv = min(kind.heads.kv, INTERPRETED_KV_HEADS)
        heads = Heads(kv * _narrowed(kind.heads.group, INTERPRETED_GROUP), kv)
    if compress is not None:
        stride = min(compress.stride, INTERPRETED_STRIDE)
        compress = Compress(min(compress.size // compress.stride, 2) * stride, stride)
    return replace(
        kind,
        heads=heads,
        dtype=kind.dtype if kind.quantised else "float16",
        window=None if window is None else Window(cut(window.left), cut(window.right, INTERPRETED_REACH - 11)),
        chunk=cut(kind.chunk),
        prefix=kind.prefix if kind.prefix == "argument" else cut(kind.prefix, 45),
        always_first=cut(kind.always_first, 5),
        global_tokens=cut(kind.global_tokens, 3),
        select=None if kind.select is None else _fewer(kind.select),
        compress=compress,
    )


def _fewer(select: Select) -> Select:
    """Shorter lists, of smaller blocks."""
    if select.blocks is None:
        top_k = _narrowed(select.top_k or 0, INTERPRETED_TOP_K)
        return replace(select, top_k=top_k, first=min(select.first, 3), last=min(select.last, 5))
    blocks = select.blocks
    size = _narrowed(blocks.size, INTERPRETED_BLOCK)
    if blocks.by is not None:  # whole strides
        size = -(-size // INTERPRETED_STRIDE) * INTERPRETED_STRIDE
    top_k, first, last = min(blocks.top_k, 4), min(blocks.first, 1), min(blocks.last, 2)
    return replace(select, blocks=replace(blocks, size=size, top_k=max(top_k, first + last), first=first, last=last))


def _narrowed(size: int, most: int) -> int:
    """``size``, or ``most`` where it is more: a power of two where it is one, and else none."""
    power = size & (size - 1) == 0
    return size if size <= most else most if power else most * 3 // 4

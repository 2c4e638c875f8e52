"""The sizes that a kernel is verified at: square, ragged, short, longer than any window, padded, and empty rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from attngen.inputs import make_inputs
from attngen.report.decided import reach
from attngen.spec.model import Kind, Window

INTERPRETED_REACH = 100  # windows and chunks are cut to this many keys where every element costs microseconds
INTERPRETED_KV_HEADS = 2


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
        """Keywords of a call at these sizes."""
        inputs = make_inputs(kind, self.batch, self.seq_q, self.seq_k, device=device, seed=self.seq_k, heads=heads)
        if self.padded:
            ranges = [[min(3 + n, self.seq_k), max(self.seq_k - 7, 0)] for n in range(self.batch)]
            ranges[-1] = [self.seq_k, self.seq_k]  # no valid key: every row of this sequence must be empty
            inputs["key_range"] = torch.tensor(ranges, dtype=torch.int32, device=device)
        return inputs


def gpu_cases(kind: Kind, seqs: tuple[int, ...] = ()) -> list[Case]:
    """The sizes for a GPU; ``seqs`` are a user's own lengths instead."""
    if seqs:
        return [Case(1, seq, seq) for seq in seqs]
    beyond = max(4097, reach(kind) + 1213)  # keys, so that every query of the ragged case has left the first window
    return [Case(2, 1024, 1024), Case(1, 1111, beyond), Case(2, 333, 190, padded=True), Case(3, 1, 777)]


def interpreted_cases(seqs: tuple[int, ...] = ()) -> list[Case]:
    """The sizes for the interpreter."""
    if seqs:
        return [Case(1, seq, seq) for seq in seqs]
    return [Case(1, 130, 130), Case(1, 37, 203), Case(2, 70, 41, padded=True), Case(1, 1, 77)]


def shortened(kind: Kind) -> Kind:
    """The same kind in float16, or still FP8, with windows, chunks and prefixes cut so that small sizes reach edges."""

    def cut(length: int | None, most: int = INTERPRETED_REACH) -> int | None:
        return None if length is None else min(length, most)

    window = kind.window
    return replace(
        kind,
        dtype=kind.dtype if kind.quantised else "float16",
        window=None if window is None else Window(cut(window.left), cut(window.right, INTERPRETED_REACH - 11)),
        chunk=cut(kind.chunk),
        prefix=kind.prefix if kind.prefix == "argument" else cut(kind.prefix, 45),
        always_first=cut(kind.always_first, 5),
        global_tokens=cut(kind.global_tokens, 3),
    )

"""What the kernels of attention to every key that is seen, forward and backward, have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attngen.plan.chunks import Chunk
from attngen.plan.keys import I_FIRST, I_LAST, Interval, Term
from attngen.spec.model import Kind

LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453


@dataclass(frozen=True)
class Argument:
    """A value that the spec leaves to run time: a keyword of the op and parameters of the kernel."""

    name: str
    # Scales: one, or one a (KV) head. Of packed documents "batch" is one a document, "documents" one more.
    shape: Literal["heads", "batch", "documents", "lists", "tensor", "scalar", "scale", "kv scale"]
    rank: int
    meaning: str


@dataclass(frozen=True)
class AttentionPlan:
    """One kernel: its loops, its mask, what happens to a score, and how heads are cut.

    ``terms`` say which keys a query sees; ``loops`` are over keys, in order of their first one. ``exp_scale`` is what
    turns the running score into base-2 units: scores stay unscaled when nothing but the softmax scale is applied to
    them, so that scaling is folded into the exponential.
    """

    kind: Kind
    terms: tuple[Term, ...]
    loops: tuple[Interval, ...]
    qk_chunks: tuple[Chunk, ...]
    v_chunks: tuple[Chunk, ...]
    arguments: tuple[Argument, ...]

    @property
    def plain_scores(self) -> bool:
        """Whether scores are scaled products and nothing else."""
        return self.kind.softcap is None and not self.kind.alibi and self.kind.score is None

    @property
    def exp_scale(self) -> float:
        return (self.kind.scale if self.plain_scores else 1.0) * LOG2E

    @property
    def unbalanced(self) -> bool:
        """Whether later tiles see more than earlier ones."""
        return any(_grows(loop) for loop in self.loops)


def _grows(loop: Interval) -> bool:
    """The loop starts at a fixed place and ends with the tile's position."""
    moving = {I_FIRST, I_LAST}
    return loop.outer_first.free_symbols.isdisjoint(moving) and not loop.outer_end.free_symbols.isdisjoint(moving)


def run_time_arguments(kind: Kind) -> tuple[Argument, ...]:
    """Keywords that a call of this kind must give, in a fixed order."""
    arguments: list[Argument] = []
    if kind.quantised:
        arguments += [
            Argument("q_scale", "scale", 1, "what q is multiplied by, float32 and positive: one, or one a query head"),
            Argument("k_scale", "kv scale", 1, "what k is multiplied by, float32 and positive: one, or one a KV head"),
            Argument("v_scale", "kv scale", 1, "what v is multiplied by, float32: one, or one a KV head"),
        ]
    if kind.documents:
        for side in ("q", "k"):
            meaning = f"first token of each document in {side}, and one past the last, int32"
            arguments.append(Argument(f"cu_seqlens_{side}", "documents", 1, meaning))
    if kind.blocks is not None:
        listed = f"blocks of {kind.blocks.size} keys that each block of as many queries may see"
        arguments.append(Argument("block_count", "lists", 3, f"number of {listed}, int32"))
        arguments.append(Argument("block_index", "lists", 4, f"{listed}, int32"))
    if kind.sink:
        arguments.append(Argument("sink", "heads", 1, "one logit a query head, float32, in natural-log units"))
    if kind.alibi:
        arguments.append(Argument("alibi_slopes", "heads", 1, "one slope a query head, float32"))
    if kind.prefix == "argument":
        arguments.append(Argument("prefix", "batch", 1, "prefix length of each sequence, int32"))
    tensors: dict[str, int] = {}
    scalars: set[str] = set()
    for expression in (kind.mask, kind.score):
        if expression is not None:
            tensors.update(expression.tensors)
            scalars.update(expression.scalars)
    arguments += [
        Argument(name, "tensor", rank, "tensor of the spec's expressions") for name, rank in sorted(tensors.items())
    ]
    arguments += [Argument(name, "scalar", 0, "number of the spec's expressions") for name in sorted(scalars)]
    return tuple(arguments)

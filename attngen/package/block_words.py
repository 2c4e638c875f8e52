"""What the module and the README of an op that attends to selected blocks of keys say of it in words."""

from __future__ import annotations

from collections.abc import Iterable

from attngen.package.words import placed, returned, seen_and_scored, tensors
from attngen.plan.attention import run_time_arguments
from attngen.plan.listed import blocks_of, lists_of
from attngen.spec.model import Kind


def documentation(kind: Kind, compressed: Kind | None, routed: bool) -> Iterable[str]:
    """Of the op: paragraphs of its docstring after the first line."""
    blocks = blocks_of(kind)
    most = blocks.size * blocks.top_k
    yield seen_and_scored(kind)
    yield ""
    yield tensors(kind)
    yield from (f"{argument.name}: ({argument.shape},) {argument.meaning}." for argument in run_time_arguments(kind))
    left_out = f"Needed for more than {most} keys" if compressed else "Left out, those that select() gives"
    yield (
        f"blocks: (batch, {lists_of(kind)}, seq_q, n), int32, any n: a list for {_whose(kind)}, of distinct blocks of "
        f"{blocks.size} keys in any order; an entry that is no block of seq_k keys is none. {left_out}; up to {most} "
        "keys are attended to whole where there are none."
    )
    yield from placed()
    if routed:
        yield "workspace_bytes: of memory for what single blocks give queries, which go through it in parts."
    yield returned(kind)


def select_documentation(kind: Kind, compressed: Kind | None) -> Iterable[str]:
    """Of the selection alone."""
    if compressed is None:
        yield "q and k as of the op."
    else:
        yield (
            f"q: as of the op. k: (batch, {kind.heads.kv}, compressed, {kind.head_dim.qk}), the keys that stand for "
            f"seq_k, and lse: (batch, {kind.heads.query}, seq_q), what attention to them gave."
        )
    yield f"{_score(kind, compressed)}; ties go to the lowest block, NaN is largest.{_always(kind)}"


def notes(kind: Kind, function: str, compressed: Kind | None) -> Iterable[str]:
    """For the README: which blocks, and what a call gives."""
    blocks = blocks_of(kind)
    listed = f"int32 (batch, {lists_of(kind)}, seq_q, n), where an entry that is no block of seq_k keys is none"
    yield (
        f"`{function}` attends to {blocks.top_k} blocks of {blocks.size} keys for each query, a list for "
        f"{_whose(kind)}. {_score(kind, compressed)}, and ties go to the lowest block.{_always(kind)} Sequences of "
        f"up to {blocks.top_k * blocks.size} keys are attended to whole. `select`, in the op's module, is the "
        f"selection alone; lists from anywhere are given as `blocks`: {listed}."
    )


def _whose(kind: Kind) -> str:
    """Of which heads a list is."""
    if blocks_of(kind).per == "head":
        return "each head"
    return f"the {kind.heads.group} heads of each KV head"


def _score(kind: Kind, compressed: Kind | None) -> str:
    """What a block's score is."""
    summed = "" if blocks_of(kind).per == "head" else ", summed over the heads of a list"
    if compressed is None:
        return f"A block's score is the product of the query with the mean of its keys{summed}"
    return f"A block's score is what attention to compressed keys pays to it{summed}"


def _always(kind: Kind) -> str:
    """Which blocks are selected whatever their scores."""
    blocks = blocks_of(kind)
    counts = (("the first", blocks.first), ("the last", blocks.last))
    forced = [name if n == 1 else f"{name} {n}" for name, n in counts if n]
    are = "are" if blocks.first + blocks.last > 1 else "is"
    return f" Of those that hold what a query sees, {' and '.join(forced)} {are} always selected." if forced else ""

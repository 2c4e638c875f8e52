"""What a call of a kind's op takes, beside q, k and v."""

from __future__ import annotations

from attngen.plan.attention import Argument, run_time_arguments
from attngen.spec.model import Kind

OPTIONAL = (
    ("offsets", "(batch,) int32", "position of each sequence's first query; seq_k - seq_q when not given"),
    ("key_range", "(batch, 2) int32", "first valid key and end of the valid keys, for padding; all when not given"),
)


def needed(kind: Kind) -> list[tuple[str, str, str]]:
    """Name, shape and meaning of each keyword that a call must give."""
    if kind.branches:
        of_branches = [
            (f"{branch.name}_{name}", shape, meaning)
            for branch in kind.branches
            for name, shape, meaning in needed(branch)
        ]
        order = ", ".join(branch.name for branch in kind.branches)
        shape = f"(batch, heads, seq_q, {len(kind.branches)})"
        return [("gates", shape, f"what the result of each branch is multiplied by: {order}"), *of_branches]
    given = [(argument.name, _shape(argument), argument.meaning) for argument in run_time_arguments(kind)]
    if kind.blocks is None:
        return given
    table = "(batch or 1, heads or 1, blocks of queries, blocks of keys) bool, or lists int32"
    listed = ("blocks", table, f"which blocks of {kind.blocks.size} keys each block of as many queries may see")
    return [listed, *(one for one in given if not one[0].startswith("block_"))]


def _shape(argument: Argument) -> str:
    if argument.shape == "scalar":
        return "number"
    if argument.shape == "tensor":
        return f"{argument.rank}-D tensor"
    if argument.shape in ("scale", "kv scale"):
        return f"(1,) or ({'heads' if argument.shape == 'scale' else 'kv heads'},)"
    return "(documents + 1,)" if argument.shape == "documents" else f"({argument.shape},)"

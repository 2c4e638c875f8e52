"""What the kernel that selects key blocks must do: the scores of blocks, and each query's exact top k, fused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attngen.errors import NotGeneratedError
from attngen.plan.attention import LOG2E
from attngen.plan.chunks import Chunk, head_dim_chunks, held_width
from attngen.plan.work import ELEMENT_BYTES
from attngen.problem import next_power_of_two
from attngen.spec.model import BlockSelect, Compress, Kind

MOST_SELECTED = 64  # blocks of a list, which stays in registers
MOST_HEADS = 128  # whose scores are summed
SHORTEST_LIST = 2  # entries, as a list is held
NOT_PROBABILITIES = ("softcap", "alibi", "score")  # with them, lse and a product alone give none


@dataclass(frozen=True)
class BlockSelectPlan:
    """For each query and list, the ``top_k`` blocks with the largest scores, the first and last of them always.

    A block's score is q . mean, or where there is a kind ``compressed``, the probability that its keys pay to the block
    (NSA, arXiv:2502.11089, equations 9 and 10). A list is of one query head, or of the heads of a KV head, whose scores
    are summed. No score is ever in memory.
    """

    kind: Kind
    compressed: Kind | None = None
    kernel: Literal["block_select"] = "block_select"

    @property
    def blocks(self) -> BlockSelect:
        assert self.kind.select is not None and self.kind.select.blocks is not None
        return self.kind.select.blocks

    @property
    def heads(self) -> int:
        """Query heads of a list."""
        return self.kind.heads.group if self.blocks.per == "kv_head" else 1

    @property
    def padded_heads(self) -> int:
        """Heads as rows of a tile hold them: those past the last are zeros."""
        return next_power_of_two(self.heads)

    @property
    def listed(self) -> int:
        """Entries of a list as it is held."""
        return max(next_power_of_two(self.blocks.top_k), SHORTEST_LIST)

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Columns of queries and keys."""
        return head_dim_chunks(self.kind.head_dim.qk)

    @property
    def row_bytes(self) -> int:
        """Of a query or key as it is held."""
        return held_width(self.chunks) * ELEMENT_BYTES[self.kind.dtype]

    @property
    def compress(self) -> Compress | None:
        return None if self.compressed is None else self.compressed.compress

    @property
    def exp_scale(self) -> float:
        """What turns a product with a compressed key into base-2 units."""
        return LOG2E * (1.0 if self.compressed is None else self.compressed.scale)


def plan_block_select(kind: Kind, compressed: Kind | None = None) -> BlockSelectPlan:
    """The plan of ``kind``'s selection of blocks, scored by their mean keys or by what the branch ``compressed`` pays.

    NotGeneratedError for what is not generated; ValueError where ``compressed`` is not what ``kind`` asks for.
    """
    blocks = None if kind.select is None else kind.select.blocks
    if blocks is None:
        raise NotGeneratedError(f"kind '{kind.name}' has no 'select: {{blocks: ...}}', so no blocks are selected")
    if kind.latent is not None:
        raise NotGeneratedError(f"kind '{kind.name}': blocks of a latent's keys are not scored; keys of heads are")
    if kind.quantised:
        raise NotGeneratedError(f"kind '{kind.name}': blocks are not scored in {kind.dtype}; in 16 or 32 bits they are")
    if not 1 <= blocks.top_k <= MOST_SELECTED:
        raise NotGeneratedError(
            f"kind '{kind.name}': top_k {blocks.top_k} of blocks; 1 to {MOST_SELECTED} are generated"
        )
    if blocks.first < 0 or blocks.last < 0 or blocks.first + blocks.last > blocks.top_k:
        raise NotGeneratedError(
            f"kind '{kind.name}': {blocks.first} first and {blocks.last} last blocks always selected; 0 to top_k = "
            f"{blocks.top_k} together are"
        )
    plan = BlockSelectPlan(kind, compressed)
    if plan.heads > MOST_HEADS:
        raise NotGeneratedError(
            f"kind '{kind.name}': the scores of {plan.heads} heads summed; at most {MOST_HEADS} are generated"
        )
    _check_compressed(kind, blocks, compressed)
    return plan


def _check_compressed(kind: Kind, blocks: BlockSelect, compressed: Kind | None) -> None:
    """The branch is the one that the kind names, and its results are probabilities of keys that blocks are made of."""
    if blocks.by != (None if compressed is None else compressed.name):
        given = "no branch" if compressed is None else f"branch '{compressed.name}'"
        wanted = "none" if blocks.by is None else f"branch '{blocks.by}'"
        raise ValueError(f"kind '{kind.name}' has its blocks scored by {given}; {wanted} is needed")
    if compressed is None:
        return
    if compressed.compress is None or blocks.size % compressed.compress.stride:
        raise ValueError(f"branch '{compressed.name}' does not compress keys at strides that divide {blocks.size}")
    if compressed.heads != kind.heads or compressed.head_dim != kind.head_dim or compressed.dtype != kind.dtype:
        raise ValueError(f"branch '{compressed.name}' and kind '{kind.name}' differ in heads, head_dim or dtype")
    for field in NOT_PROBABILITIES:
        if getattr(compressed, field):
            raise NotGeneratedError(f"branch '{compressed.name}': blocks are not scored by a branch with '{field}'")

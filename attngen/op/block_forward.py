"""What the operator of a kind that selects blocks computes: attention of each query over the blocks of its list."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from attngen import reference
from attngen.database import Database
from attngen.errors import CallError
from attngen.op.arguments import empty_outputs
from attngen.op.block_checks import check_block_call
from attngen.op.block_selector import BlockSelector
from attngen.op.choose import Chooser, Chosen
from attngen.op.kernels import Launchers
from attngen.op.register import Implementation
from attngen.plan.forward import plan_forward
from attngen.plan.kernels import plan_listed
from attngen.plan.listed import blocks_of, lists_of
from attngen.problem import Problem
from attngen.spec.model import Kind

Tensor = torch.Tensor
Maybe = torch.Tensor | None
OPTIONAL = ("blocks", "sink", "offsets", "key_range")
SCHEMA = f"(Tensor q, Tensor k, Tensor v, {', '.join(f'Tensor? {name}=None' for name in OPTIONAL)}) -> (Tensor, Tensor)"


class BlockForward:
    """(q, k, v, blocks, sink, offsets, key_range) -> (out, lse), on each device.

    blocks: int32 (batch, lists, seq_q, any), a list for each head or each KV head. Without them they are selected by
    ``selector``, but where every list would hold every block: there the kind's forward kernel attends to all keys.
    Lengths decide here, where a compiler that traces the operator does not see it.
    """

    def __init__(self, kind: Kind, selector: BlockSelector | None, db: Database | str | None) -> None:
        self.kind = kind
        self.blocks = blocks_of(kind)
        self.selector = selector
        plan = plan_forward(replace(kind, select=None))
        self.whole = Implementation(plan, Chooser(plan, db))  # attention to every key that the kind lets a query see
        self.launchers = Launchers(plan_listed(kind), db)

    def takes_all(self, seq_k: int) -> bool:
        """Whether a list that is selected is of all blocks."""
        return seq_k <= self.blocks.size * self.blocks.top_k

    def cuda(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        blocks: Maybe = None,
        sink: Maybe = None,
        offsets: Maybe = None,
        key_range: Maybe = None,
    ) -> tuple[Tensor, Tensor]:
        """By kernels."""
        check_block_call(self.whole.plan, lists_of(self.kind), q, k, v, blocks, sink, offsets, key_range)
        if blocks is None and self.takes_all(k.shape[2]):
            return self.whole.cuda(q, k, v, *(() if sink is None else (sink,)), offsets, key_range)
        if blocks is None:
            blocks = self._select.cuda(q, k, None, None, offsets, key_range)
        launcher = self.launchers.at(q.shape[0], q.shape[2], k.shape[2])
        return launcher(q, k, v, blocks, sink=sink, offsets=offsets, key_range=key_range)

    def cpu(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        blocks: Maybe = None,
        sink: Maybe = None,
        offsets: Maybe = None,
        key_range: Maybe = None,
    ) -> tuple[Tensor, Tensor]:
        """By the reference."""
        check_block_call(self.whole.plan, lists_of(self.kind), q, k, v, blocks, sink, offsets, key_range)
        placed: dict[str, Any] = {"offsets": offsets, "key_range": key_range}
        if blocks is None and not self.takes_all(k.shape[2]):
            blocks = self._select.cpu(q, k, None, None, **placed)
        indices = None if blocks is None else keys_of_valid(blocks, self.blocks.size, k.shape[2])
        exact, exact_lse = reference.attention(self.kind, q, k, v, indices=indices, sink=sink, **placed)
        out, lse = empty_outputs(q, self.kind.head_dim.v)
        return out.copy_(exact), lse.copy_(exact_lse)

    def fake(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        blocks: Maybe = None,
        sink: Maybe = None,
        offsets: Maybe = None,
        key_range: Maybe = None,
    ) -> tuple[Tensor, Tensor]:
        """Results, not computed."""
        check_block_call(self.whole.plan, lists_of(self.kind), q, k, v, blocks, sink, offsets, key_range)
        return empty_outputs(q, self.kind.head_dim.v)

    def chosen(self, q: Tensor, k: Tensor, v: Tensor) -> Chosen:
        """The config of the kernel that attends where blocks are selected, for tensors of these shapes."""
        if self.takes_all(k.shape[2]):
            return self.whole.chooser(q, k, v)
        problem = Problem(self.launchers.plan.kernel, self.kind.digest(), q.shape[0], q.shape[2], k.shape[2])
        return self.launchers.chooser.at(problem)

    @property
    def _select(self) -> BlockSelector:
        if self.selector is None:
            raise CallError(f"kind '{self.kind.name}': another branch scores its blocks; give 'blocks'")
        return self.selector


def keys_of_valid(blocks: Tensor, size: int, seq_k: int) -> Tensor:
    """Lists of blocks as lists of their keys; what is no block of ``seq_k`` keys names none."""
    valid = (blocks >= 0) & (blocks < -(-seq_k // size))
    return reference.keys_of_blocks(torch.where(valid, blocks, -1), size)

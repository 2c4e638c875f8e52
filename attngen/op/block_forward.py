"""What the operator of a kind that selects blocks computes: attention of each query over the blocks of its list."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from attngen import reference
from attngen.database import Database
from attngen.errors import CallError
from attngen.op.arguments import empty_outputs
from attngen.op.block_checks import BlockCall, check_block_call
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
OPTIONAL = BlockCall._fields[3:]
SCHEMA = f"(Tensor q, Tensor k, Tensor v, {', '.join(f'Tensor? {name}=None' for name in OPTIONAL)}) -> (Tensor, Tensor)"


class BlockForward:
    """(the fields of a ``BlockCall``) -> (out, lse), on each device.

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

    def cuda(self, *given: Any) -> tuple[Tensor, Tensor]:
        """By kernels."""
        call = self._checked(given)
        q, k, blocks = call.q, call.k, call.blocks
        if blocks is None and self.takes_all(k.shape[2]):
            sink = () if call.sink is None else (call.sink,)
            return self.whole.cuda(q, k, call.v, *sink, call.offsets, call.key_range)
        if blocks is None:
            blocks = self._select.cuda(q, k, None, None, call.offsets, call.key_range)
        launcher = self.launchers.at(q.shape[0], q.shape[2], k.shape[2])
        return launcher(q, k, call.v, blocks, sink=call.sink, offsets=call.offsets, key_range=call.key_range)

    def cpu(self, *given: Any) -> tuple[Tensor, Tensor]:
        """By the reference."""
        call = self._checked(given)
        q, k, blocks = call.q, call.k, call.blocks
        placed: dict[str, Any] = {"offsets": call.offsets, "key_range": call.key_range}
        if blocks is None and not self.takes_all(k.shape[2]):
            blocks = self._select.cpu(q, k, None, None, **placed)
        indices = None if blocks is None else keys_of_valid(blocks, self.blocks.size, k.shape[2])
        exact, exact_lse = reference.attention(self.kind, q, k, call.v, indices=indices, sink=call.sink, **placed)
        out, lse = empty_outputs(q, self.kind.head_dim.v)
        return out.copy_(exact), lse.copy_(exact_lse)

    def fake(self, *given: Any) -> tuple[Tensor, Tensor]:
        """Results, not computed."""
        return empty_outputs(self._checked(given).q, self.kind.head_dim.v)

    def chosen(self, q: Tensor, k: Tensor, v: Tensor) -> Chosen:
        """The config of the kernel that attends where blocks are selected, for tensors of these shapes."""
        if self.takes_all(k.shape[2]):
            return self.whole.chooser(q, k, v)
        problem = Problem(self.launchers.plan.kernel, self.kind.digest(), q.shape[0], q.shape[2], k.shape[2])
        return self.launchers.chooser.at(problem)

    def _checked(self, given: tuple[Any, ...]) -> BlockCall:
        call = BlockCall(*given)
        check_block_call(self.whole.plan, lists_of(self.kind), call)
        return call

    @property
    def _select(self) -> BlockSelector:
        if self.selector is None:
            raise CallError(f"kind '{self.kind.name}': another branch scores its blocks; give 'blocks'")
        return self.selector


def keys_of_valid(blocks: Tensor, size: int, seq_k: int) -> Tensor:
    """Lists of blocks as lists of their keys; what is no block of ``seq_k`` keys names none."""
    valid = (blocks >= 0) & (blocks < -(-seq_k // size))
    return reference.keys_of_blocks(torch.where(valid, blocks, -1), size)

"""The op of a kind that selects blocks of keys: a selection, then attention of each query over its own blocks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

import torch

from attngen.database import Database
from attngen.errors import CallError, NotGeneratedError, one_of
from attngen.op.block_forward import OPTIONAL, SCHEMA, BlockForward
from attngen.op.block_selector import SCHEMA as SELECT_SCHEMA
from attngen.op.block_selector import BlockSelector
from attngen.op.checks import check_tensor
from attngen.op.choose import Chosen
from attngen.op.no_backward import without_backward
from attngen.op.register import latest_operator, operator_name
from attngen.problem import Problem
from attngen.source import render
from attngen.spec.model import Kind


class BlockOp:
    """The op of one kind of attention layer that attends to selected blocks of keys (MoBA, arXiv:2502.13189).

    ``compressed`` is the branch by which blocks are scored, of a kind that is a branch itself (NSA, arXiv:2502.11089).
    """

    def __init__(
        self, spec: str, kind: Kind, db: Database | str | None = None, *, compressed: Kind | None = None
    ) -> None:
        self.kind = kind
        self._spec = spec
        self._db = db
        self._compressed = compressed
        with suppress(NotGeneratedError):  # said when the op is used
            _ = self.operator, self.select_operator  # torch.compile cannot make them in the middle of a graph

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        blocks: torch.Tensor | None = None,
        sink: torch.Tensor | None = None,
        offsets: torch.Tensor | None = None,
        key_range: torch.Tensor | None = None,
        return_lse: bool = False,
    ) -> Any:
        """softmax(score(q k^T)) v over the keys of the blocks that were selected for each query.

        q: (batch, heads, seq_q, qk dim); k: (batch, kv heads, seq_k, qk dim); v: (batch, kv heads, seq_k, v dim).
        blocks: int32 (batch, heads, seq_q, any), or with ``per: kv_head`` (batch, kv heads, seq_q, any), distinct
        blocks in any order, of which others than 0 to ceil(seq_k / size) - 1 are none; without them, those that
        ``select`` gives. Where every list would be of all blocks, nothing is scored. sink: (heads,), of kinds that have
        one. offsets and key_range: as of every op.
        Returns out (batch, heads, seq_q, v dim) and with ``return_lse`` lse (batch, heads, seq_q), float32, natural
        log, without the sink; a row that sees no key gives 0 and -inf. CPU tensors take the float64 reference.
        Raises CallError (a ValueError) for what does not fit the spec.
        """
        for name, tensor in (("q", q), ("k", k), ("v", v)):
            check_tensor(name, tensor)
        given = (blocks, sink, offsets, key_range)
        for name, optional in zip(OPTIONAL, given, strict=True):
            if optional is not None:
                check_tensor(name, optional)
        out, lse = without_backward(self.operator, self.kind.name, q, k, v, *given)
        return (out, lse) if return_lse else out

    def select(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        *,
        lse: torch.Tensor | None = None,
        seq_k: int | None = None,
        offsets: torch.Tensor | None = None,
        key_range: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The blocks with the largest scores, int32 (batch, heads or kv heads, seq_q, top_k), ascending and then -1.

        A block's score is q . (mean of its keys), of k (batch, kv heads, seq_k, qk dim). Of a branch that another
        branch scores it is what that pays to the block: k are its compressed keys, lse (batch, heads, seq_q) what it
        gave, and seq_k how many keys there are. Ties go to the lowest block.
        """
        paid = self._compressed is not None
        if paid != (lse is not None) or paid != (seq_k is not None):
            raise CallError(
                f"kind '{self.kind.name}' selects by "
                + ("what another branch pays: its 'lse' and 'seq_k' are needed" if paid else "means: without 'lse'")
            )
        with torch.no_grad():
            return self.select_operator(q, k, lse, seq_k, offsets, key_range)

    @property
    def by(self) -> str | None:
        """The branch that scores blocks, of a kind that is a branch itself."""
        return None if self._compressed is None else self._compressed.name

    def takes_all(self, seq_k: int) -> bool:
        """Whether so few keys make every list one of all blocks."""
        return self._forward.takes_all(seq_k)

    @cached_property
    def operator(self) -> Callable:
        """The torch operator: (q, k, v, blocks, sink, offsets, key_range) -> (out, lse)."""
        return latest_operator(self._name(self.kind), SCHEMA, self._forward)

    @cached_property
    def select_operator(self) -> Callable:
        """The torch operator: (q, k, lse, seq_k, offsets, key_range) -> blocks."""
        return latest_operator(f"{self._name(self.kind)}_select", SELECT_SCHEMA, self._selector)

    def config(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Chosen:
        """What would attend for these tensors, and where that choice comes from."""
        return self._forward.chosen(q, k, v)

    def source(self, kernel: str | None = None, *, batch: int = 1, seq: int = 4096) -> str:
        """The generated code of a kernel, for the config that this machine would run at these sizes: without a name,
        of the one that attends to selected blocks."""
        attending = self._forward.launchers
        choosers = {one.plan.kernel: one.chooser for one in (attending, self._selector.launchers)}
        choosers["forward"] = self._forward.whole.chooser
        name = attending.plan.kernel if kernel is None else kernel
        if name not in choosers:
            raise CallError(f"no kernel '{name}'; {one_of(choosers)} is generated")
        plan = choosers[name].plan
        config = choosers[name].at(Problem(name, plan.kind.digest(), batch, seq, seq)).config
        return render(plan, config).text

    @cached_property
    def _selector(self) -> BlockSelector:
        return BlockSelector(self.kind, self._compressed, self._db)

    @cached_property
    def _forward(self) -> BlockForward:
        return BlockForward(self.kind, None if self._compressed else self._selector, self._db)

    def _name(self, kind: Kind) -> str:
        by = "" if self._compressed is None else f"_by_{self._compressed.digest()}"
        return operator_name(self._spec, kind, self._db) + by

    def __repr__(self) -> str:
        return f"<attngen op {self._spec}.{self.kind.name}>"

"""The op of a kind that selects keys: an indexer's selection, then attention of each query over its own list."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

import torch

from attngen.database import Database
from attngen.errors import CallError, NotGeneratedError
from attngen.op.checks import check_tensor
from attngen.op.choose import Chosen
from attngen.op.no_backward import without_backward
from attngen.op.register import latest_operator, operator_name
from attngen.op.selector import Selector
from attngen.op.sparse_forward import OPTIONAL, SCHEMA, SparseForward
from attngen.plan.gathered import GatheredPlan, plan_gathered
from attngen.problem import Problem
from attngen.source import render
from attngen.spec.model import Kind


class SparseOp:
    """The op of one kind of attention layer that attends to selected keys."""

    def __init__(self, spec: str, kind: Kind, db: Database | str | None = None) -> None:
        self.kind = kind
        self._spec = spec
        self._db = db
        with suppress(NotGeneratedError, CallError):  # said when the op is used
            _ = self.operator, self.select  # made now, because torch.compile cannot make them in the middle of a graph

    @cached_property
    def plan(self) -> GatheredPlan:
        """What the attention over lists must do; NotGeneratedError for kinds whose kernels do not exist yet."""
        return plan_gathered(self.kind)

    @cached_property
    def select(self) -> Selector:
        """(index_q, index_k, index_weights) -> the keys that each query attends to."""
        if self.kind.select is None or self.kind.select.indexer is None:
            raise CallError(f"kind '{self.kind.name}' has no indexer; give 'indices'")
        return Selector(self.kind, self._db)

    @cached_property
    def operator(self) -> Callable:
        """The torch operator: (q, k, v, indices, what the indexer takes, sink, offsets, key_range) -> (out, lse)."""
        return latest_operator(operator_name(self._spec, self.kind, self._db), SCHEMA, self._forward)

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor | None = None,
        *,
        indices: torch.Tensor | None = None,
        topk_length: torch.Tensor | None = None,
        index_q: torch.Tensor | None = None,
        index_k: torch.Tensor | None = None,
        index_weights: torch.Tensor | None = None,
        sink: torch.Tensor | None = None,
        offsets: torch.Tensor | None = None,
        key_range: torch.Tensor | None = None,
        return_lse: bool = False,
    ) -> Any:
        """softmax(score(q k^T)) v over the keys that were selected for each query.

        q: (batch, heads, seq_q, qk dim); k: (batch, kv heads, seq_k, qk dim); v: (batch, kv heads, seq_k, v dim), left
        out for a latent kind, whose values are the first columns of its keys.
        Either indices, int32 (batch, seq_q, top_k) or (batch, kv heads, seq_q, top_k): distinct keys in any order, and
        others than 0 to seq_k - 1, or beyond what the kind lets a query see, are none; or what the indexer selects
        from, as ``select`` takes it. Where there are no more than top_k keys, neither is needed, and nothing is scored:
        all are taken. topk_length, int32 (batch, seq_q): how many entries of each list count, from its first.
        sink: (heads,), of kinds that have one. offsets and key_range: as of every op.
        Returns out (batch, heads, seq_q, v dim) and with ``return_lse`` lse (batch, heads, seq_q), float32, natural
        log, without the sink; a row that sees no key gives 0 and -inf. CPU tensors take the float64 reference.
        Raises CallError (a ValueError) for what does not fit the spec.
        """
        for name, tensor in (("q", q), ("k", k)):
            check_tensor(name, tensor)
            if tensor.dim() != 4:
                raise CallError(f"{name} has shape {tuple(tensor.shape)}; (batch, heads, sequence, dim) is needed")
        given = (v, indices, index_q, index_k, index_weights, sink, offsets, key_range, topk_length)
        if topk_length is not None and indices is None:
            raise CallError("topk_length counts entries of 'indices', which is not given; leave it out")
        for name, optional in zip(OPTIONAL, given, strict=True):
            if optional is not None:
                check_tensor(name, optional)
        out, lse = without_backward(self.operator, self.kind.name, q, k, *given)
        return (out, lse) if return_lse else out

    def config(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor | None = None) -> Chosen:
        """What would attend for these tensors, and where that choice comes from."""
        return self._forward.chosen(q, k, v)

    def source(self, kernel: str = "gathered", *, batch: int = 1, seq: int = 4096) -> str:
        """The generated code of "gathered", "indexer" or "select", or of the "forward" kernel that sequences no longer
        than a list take, for what this machine would run at these sizes."""
        forward = self._forward
        if kernel == "gathered":
            config = forward.launchers.chooser.at(Problem(kernel, self.kind.digest(), batch, seq, seq)).config
            return render(self.plan, config).text
        if kernel == "forward" and forward.whole is not None:
            plan = forward.whole.plan
            config = forward.whole.chooser.at(Problem(kernel, plan.kind.digest(), batch, seq, seq)).config
            return render(plan, config).text
        return self.select.source(kernel, batch, seq)

    @cached_property
    def _forward(self) -> SparseForward:
        indexed = self.kind.select is not None and self.kind.select.indexer is not None
        return SparseForward(self.plan, self.select if indexed else None, self._db)

    def __repr__(self) -> str:
        return f"<attngen op {self._spec}.{self.kind.name}>"

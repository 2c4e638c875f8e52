"""The op of a kind that selects keys: an indexer's selection, then attention of each query over its own list."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import torch

from attngen import reference
from attngen.config import Config
from attngen.database import Database
from attngen.errors import CallError
from attngen.op.arguments import empty_outputs
from attngen.op.backward import without_backward
from attngen.op.checks import check_tensor
from attngen.op.choose import Chosen
from attngen.op.gathered import check_gathered_call, why_not_gathered_by_hopper
from attngen.op.kernels import Launchers
from attngen.op.selector import WORKSPACE_BYTES, Selector
from attngen.plan.gathered import GatheredPlan, plan_gathered
from attngen.problem import Problem
from attngen.source import render
from attngen.spec.model import Kind

INDEX_KEYWORDS = ("index_q", "index_k", "index_weights")
ANY_LAYOUT = Config(schedule="portable")


class SparseOp:
    """The op of one kind of attention layer that attends to selected keys."""

    def __init__(self, spec: str, kind: Kind, db: Database | str | None = None) -> None:
        self.kind = kind
        self._spec = spec
        self._db = db

    @cached_property
    def plan(self) -> GatheredPlan:
        """What the attention over lists must do; NotGeneratedError for kinds whose kernels do not exist yet."""
        return plan_gathered(self.kind)

    @cached_property
    def select(self) -> Selector:
        """(index_q, index_k, index_weights) -> the keys that each query attends to."""
        if self.kind.select is None or self.kind.select.indexer is None:
            raise CallError(f"kind '{self.kind.name}' has no indexer; give 'indices'")
        return Selector(self.kind, self._db, WORKSPACE_BYTES)

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor | None = None,
        *,
        indices: torch.Tensor | None = None,
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
        from, as ``select`` takes it. Where no query can see more than top_k keys, nothing is scored: all are taken.
        sink: (heads,), of kinds that have one. offsets and key_range: as of every op.
        Returns out (batch, heads, seq_q, v dim) and with ``return_lse`` lse (batch, heads, seq_q), float32, natural
        log, without the sink; a row that sees no key gives 0 and -inf. CPU tensors take the float64 reference.
        Raises CallError (a ValueError) for what does not fit the spec.
        """
        for name, tensor in (("q", q), ("k", k)):
            check_tensor(name, tensor)
            if tensor.dim() != 4:
                raise CallError(f"{name} has shape {tuple(tensor.shape)}; (batch, heads, sequence, dim) is needed")
        placed: dict[str, Any] = {"offsets": offsets, "key_range": key_range}
        lengths: dict[str, Any] = {}
        if indices is None:
            given = dict(zip(INDEX_KEYWORDS, (index_q, index_k, index_weights), strict=True))
            indices, lengths["topk_length"] = self._selected(q, k, given, placed)
        arguments = {**placed, "sink": sink} if self.kind.sink else placed
        if q.device.type == "cuda":
            gluon = why_not_gathered_by_hopper(q, k) is None
            launcher = self._launchers.at(q.shape[0], q.shape[2], k.shape[2], gluon=gluon)
            out, lse = without_backward(partial(launcher, **arguments, **lengths), self.kind.name, q, k, v, indices)
        else:
            check_gathered_call(self.plan, ANY_LAYOUT, (q, k, v, indices, sink, offsets, key_range, None))
            exact, exact_lse = reference.attention(self.kind, q, k, v, indices=indices, **arguments)
            out, lse = empty_outputs(q, self.kind.head_dim.v)
            out.copy_(exact)
            lse.copy_(exact_lse)
        return (out, lse) if return_lse else out

    def config(self, q: torch.Tensor, k: torch.Tensor) -> Chosen:
        """What would run for these tensors, and where that choice comes from."""
        problem = Problem("gathered", self.kind.digest(), q.shape[0], q.shape[2], k.shape[2])
        return self._launchers.chooser.at(problem, gluon=why_not_gathered_by_hopper(q, k) is None)

    def source(self, kernel: str = "gathered", *, batch: int = 1, seq: int = 4096) -> str:
        """The generated code of "gathered", "indexer" or "select", for what this machine would run at these sizes."""
        if kernel == "gathered":
            config = self._launchers.chooser.at(Problem(kernel, self.kind.digest(), batch, seq, seq)).config
            return render(self.plan, config).text
        return self.select.source(kernel, batch, seq)

    @cached_property
    def _launchers(self) -> Launchers:
        return Launchers(self.plan, self._db)

    def _selected(
        self, q: torch.Tensor, k: torch.Tensor, given: dict[str, Any], placed: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Each query's keys, and how many entries of its list may be keys."""
        batch, _, seq_q, _ = q.shape
        seq_k, top_k = k.shape[2], self.select.top_k
        first, end = reference.key_bounds(self.kind, seq_q, seq_k, batch, device=q.device, **placed)
        if seq_k <= top_k:
            every = torch.arange(seq_k, dtype=torch.int32, device=q.device).expand(batch, seq_q, seq_k)
            return every, end.clamp(0, seq_k)
        missing = [name for name, tensor in given.items() if tensor is None]
        if missing:
            raise CallError(
                f"kind '{self.kind.name}' needs the argument '{missing[0]}': its indexer selects {top_k} of {seq_k} "
                "keys; 'indices' would do too"
            )
        index_q, index_k = given["index_q"], given["index_k"]
        if index_q.dim() == 4 and index_k.dim() == 3:  # else the selection says what is wrong
            sizes, wanted = (index_q.shape[0], index_q.shape[2], index_k.shape[1]), (batch, seq_q, seq_k)
            if sizes != wanted:
                raise CallError(
                    f"index_q and index_k are of batch, queries and keys {sizes}, and q and k of {wanted}; they must "
                    "be equal"
                )
        indices = self.select(**given, **placed)
        return indices, (end.clamp(max=seq_k) - first.clamp(min=0)).clamp(0, top_k)

    def __repr__(self) -> str:
        return f"<attngen op {self._spec}.{self.kind.name}>"

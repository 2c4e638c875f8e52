"""What the operator of a kind that selects keys computes: a selection where there is one, then attention."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import torch

from attngen import reference
from attngen.config import Config
from attngen.database import Database
from attngen.errors import CallError
from attngen.op.arguments import empty_outputs
from attngen.op.checks import check_placed
from attngen.op.choose import Chooser, Chosen
from attngen.op.gathered import check_gathered_call, check_given, why_not_gathered_by_hopper
from attngen.op.index_checks import check_index
from attngen.op.kernels import Launchers
from attngen.op.key_bounds import key_bounds
from attngen.op.register import Implementation
from attngen.op.selector import Selector
from attngen.plan.forward import plan_forward
from attngen.plan.gathered import GatheredPlan
from attngen.plan.kernels import attended_whole
from attngen.problem import Problem

ANY_LAYOUT = Config(schedule="portable")
Tensor = torch.Tensor
Maybe = torch.Tensor | None  # of what a call may leave out


class Call(NamedTuple):
    """What the operator is given, in order."""

    q: Tensor
    k: Tensor
    v: Maybe = None
    indices: Maybe = None
    index_q: Maybe = None
    index_k: Maybe = None
    index_weights: Maybe = None
    sink: Maybe = None
    offsets: Maybe = None
    key_range: Maybe = None
    topk_length: Maybe = None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Batch, queries and keys."""
        return self.q.shape[0], self.q.shape[2], self.k.shape[2]


OPTIONAL = Call._fields[2:]
SCHEMA = f"(Tensor q, Tensor k, {', '.join(f'Tensor? {name}=None' for name in OPTIONAL)}) -> (Tensor, Tensor)"


class SparseForward:
    """(the fields of a ``Call``) -> (out, lse), on each device.

    ``selector``: of kinds that have an indexer. Which kernels run depends on lengths, and is decided here, where a
    compiler that traces the operator does not see it.
    """

    def __init__(self, plan: GatheredPlan, selector: Selector | None, db: Database | str | None) -> None:
        self.plan = plan
        self.kind = plan.kind
        self.selector = selector
        self.launchers = Launchers(plan, db)
        self._db = db

    @cached_property
    def whole(self) -> Implementation | None:
        """Attention to every key, by the kind's forward kernel; latent kinds have none, but lists of all keys."""
        kind = attended_whole(self.kind)
        if kind is None:
            return None
        plan = plan_forward(kind)
        return Implementation(plan, Chooser(plan, self._db))

    def takes_all(self, seq_k: int) -> bool:
        """Whether a query's list, where none is given, is of all keys that it sees."""
        select = self.kind.select
        return select is not None and select.top_k is not None and seq_k <= select.top_k

    def cuda(self, *given: Any) -> tuple[Tensor, Tensor]:
        """By kernels."""
        call = Call(*given)
        q, k = call.q, call.k
        self._check_heads(q)
        indices, topk_length = call.indices, call.topk_length
        if indices is None:
            check_given(self.plan, call.v, call.sink)
            if self.takes_all(k.shape[2]) and self.whole is not None:
                assert call.v is not None
                sink = () if call.sink is None else (call.sink,)
                return self.whole.cuda(q, k, call.v, *sink, call.offsets, call.key_range)
            indices, topk_length = self._lists(call)
        launcher = self.launchers.at(*call.sizes, gluon=why_not_gathered_by_hopper(q, k) is None)
        placed = {"sink": call.sink, "offsets": call.offsets, "key_range": call.key_range}
        return launcher(q, k, call.v, indices, **placed, topk_length=topk_length)

    def cpu(self, *given: Any) -> tuple[Tensor, Tensor]:
        """By the reference."""
        call = Call(*given)
        self._check(call)
        placed: dict[str, Any] = {"offsets": call.offsets, "key_range": call.key_range}
        indices = call.indices
        if indices is None and not self.takes_all(call.k.shape[2]):
            indices = self._select.cpu(*self._index(call), **placed)
        elif indices is not None and call.topk_length is not None:
            indices = counted(indices, call.topk_length)
        exact, exact_lse = reference.attention(
            self.kind, call.q, call.k, call.v, indices=indices, sink=call.sink, **placed
        )
        out, lse = empty_outputs(call.q, self.kind.head_dim.v)
        return out.copy_(exact), lse.copy_(exact_lse)

    def fake(self, *given: Any) -> tuple[Tensor, Tensor]:
        """Results, not computed. Whether an indexer's tensors are missing depends on lengths, and shows in a call."""
        call = Call(*given)
        self._check(call)
        index = call.index_q, call.index_k, call.index_weights
        if call.indices is None and all(tensor is not None for tensor in index):
            self._index(call)
        return empty_outputs(call.q, self.kind.head_dim.v)

    def chosen(self, q: Tensor, k: Tensor, v: Maybe) -> Chosen:
        """The config of the kernel that attends, for tensors of these shapes."""
        if self.selector is not None and self.takes_all(k.shape[2]) and self.whole is not None:
            return self.whole.chooser(q, k, k if v is None else v)
        problem = Problem("gathered", self.kind.digest(), q.shape[0], q.shape[2], k.shape[2])
        return self.launchers.chooser.at(problem, gluon=why_not_gathered_by_hopper(q, k) is None)

    @property
    def _select(self) -> Selector:
        if self.selector is None:
            raise CallError(f"kind '{self.kind.name}' has no indexer; give 'indices'")
        return self.selector

    def _check(self, call: Call) -> None:
        """CallError unless all but what an indexer takes fits the kind."""
        self._check_heads(call.q)
        tensors = (call.q, call.k, call.v, call.indices, call.sink, call.offsets, call.key_range, call.topk_length)
        check_gathered_call(self.plan, ANY_LAYOUT, tensors)

    def _check_heads(self, q: Tensor) -> None:
        heads = self.kind.heads.query
        if q.shape[1] != heads:
            raise CallError(f"q has {q.shape[1]} heads, shape {tuple(q.shape)}; the spec says {heads}")

    def _lists(self, call: Call) -> tuple[Tensor, Tensor]:
        """Each query's keys, and how many entries of its list may be keys."""
        batch, seq_q, seq_k = call.sizes
        check_placed(batch, call.q.device, call.offsets, call.key_range)
        first, end = key_bounds(self.kind, batch, seq_q, seq_k, call.q.device, call.offsets, call.key_range)
        if self.takes_all(seq_k):
            every = torch.arange(seq_k, dtype=torch.int32, device=call.q.device).expand(batch, seq_q, seq_k)
            return every, end.contiguous()
        select = self._select
        index = select.quantised(*self._index(call))
        return select.select(index, first, end), (end - first).clamp(0, select.top_k)

    def _index(self, call: Call) -> tuple[Tensor, Tensor, Tensor]:
        """What the indexer selects from; CallError where it is missing or does not fit q and k."""
        select, wanted = self._select, call.sizes
        index_q, index_k, index_weights = call.index_q, call.index_k, call.index_weights
        if index_q is None or index_k is None or index_weights is None:
            missing = next(name for name in Call._fields[4:7] if getattr(call, name) is None)
            raise CallError(
                f"kind '{self.kind.name}' needs the argument '{missing}': its indexer selects {select.top_k} of "
                f"{wanted[2]} keys; 'indices' would do too"
            )
        check_index(select.indexer, index_q, index_k, index_weights)
        sizes = index_q.shape[0], index_q.shape[2], index_k.shape[1]
        if sizes != wanted:
            raise CallError(
                f"index_q and index_k are of batch, queries and keys {sizes}, and q and k of {wanted}; they must be "
                "equal"
            )
        return index_q, index_k, index_weights


def counted(indices: Tensor, topk_length: Tensor) -> Tensor:
    """Lists of which only the first ``topk_length`` entries are keys."""
    lengths = topk_length[:, None, :, None] if indices.dim() == 4 else topk_length[..., None]
    return indices.masked_fill(torch.arange(indices.shape[-1], device=indices.device) >= lengths, -1)

"""The op of one kind of attention layer that a forward kernel computes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

import torch

from attngen.database import Database
from attngen.errors import CallError, NotGeneratedError, one_of
from attngen.op.autograd import records_gradients, trained_operator
from attngen.op.block_lists import block_lists
from attngen.op.checks import check_tensor, ordered_keywords
from attngen.op.choose import Chooser, Chosen, target_here
from attngen.op.fused import fuses
from attngen.op.register import Implementation, operator, operator_name
from attngen.plan import ForwardPlan, plan_forward
from attngen.plan.backward import BackwardPlan, plan_backward
from attngen.plan.kernels import backward_plans_for
from attngen.problem import Problem
from attngen.source import render
from attngen.spec.model import Kind


class KindOp:
    """The op of one kind of attention layer."""

    def __init__(self, spec: str, kind: Kind, db: Database | str | None = None) -> None:
        self.kind = kind
        self._spec = spec
        self._db = db
        with suppress(NotGeneratedError):  # said when the op is used
            _ = self.operator, self.trained  # made now, because torch.compile cannot make them in the middle of a graph

    @cached_property
    def plan(self) -> ForwardPlan:
        """What the kernel must do; NotGeneratedError for kinds whose kernels do not exist yet."""
        return plan_forward(self.kind)

    @cached_property
    def chooser(self) -> Chooser:
        return Chooser(self.plan, self._db)

    @cached_property
    def _operator(self) -> tuple[Callable, Implementation]:
        return operator(operator_name(self._spec, self.kind, self._db), self.plan, self.chooser)

    @property
    def operator(self) -> Callable:
        """The torch operator: (q, k, v, the kind's keywords in order) -> (out, lse); it records no gradients."""
        return self._operator[0]

    @cached_property
    def trained(self) -> Callable:
        """The same with gradients."""
        return trained_operator(operator_name(self._spec, self.kind, self._db), self._operator[1], self._db)

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, return_lse: bool = False, **keywords: Any
    ) -> Any:
        """softmax(score(q k^T)) v over the keys that the kind lets each query see.

        q: (batch, heads, seq_q, qk dim); k: (batch, kv heads, seq_k, qk dim); v: (batch, kv heads, seq_k, v dim), in
        the spec's dtype, any strides but a unit last one.
        keywords: what the spec leaves to run time (``plan.arguments``), and always ``offsets`` (batch,) int32, the
        position of the first query (default seq_k - seq_q), and ``key_range`` (batch, 2) int32, first and end of the
        valid keys. Under autocast q, k and v are taken to the spec's dtype.
        Of a kind with documents q is (tokens, heads, qk dim), k and v likewise, out (tokens, heads, v dim) and lse
        (heads, tokens); ``cu_seqlens_q`` (documents + 1,) int32 says where each begins, as does ``cu_seqlens_k``
        (default the same), and what is one a sequence is one a document. Tokens after the last document see nothing.
        Of a kind with blocks, ``blocks`` says which blocks of keys each block of queries may see: bool (batch or 1,
        heads or 1, blocks of queries, blocks of keys), or lists of blocks, int32 (..., blocks of queries, entries), in
        any order, where -1 is none.
        Returns out (batch, heads, seq_q, v dim), of FP8 in bfloat16, and with ``return_lse`` also lse (batch, heads,
        seq_q), float32, natural log, without the sink; a row that sees no key gives 0 and -inf. Both are differentiable
        in q, k, v and what the score reads (sink, alibi_slopes, tensors of its expression), with the same bits from run
        to run. CPU tensors take the float64 reference.
        Raises CallError (a ValueError) for what does not fit the spec.
        """
        for name, tensor in (("q", q), ("k", k), ("v", v)):
            check_tensor(name, tensor)
        if self.kind.documents:
            keywords = {"cu_seqlens_k": keywords.get("cu_seqlens_q"), **keywords}
            q, k, v = (unpacked(name, x) for name, x in (("q", q), ("k", k), ("v", v)))
        if self.kind.blocks is not None:
            keywords = self._listed(q, k, keywords)
        extras = ordered_keywords(self.plan, keywords) if keywords or self.plan.arguments else ()
        if q.device.type in ("cuda", "cpu") and torch.is_autocast_enabled(q.device.type):
            q, k, v = (autocast(self.kind, x) for x in (q, k, v))
        call = self.trained if records_gradients((q, k, v, *extras)) else self.operator
        out, lse = call(q, k, v, *extras)
        if self.kind.documents:
            out, lse = out[0].transpose(0, 1), lse[0]
        return (out, lse) if return_lse else out

    def _listed(self, q: torch.Tensor, k: torch.Tensor, keywords: dict[str, Any]) -> dict[str, Any]:
        """The keywords with lists in the place of ``blocks``."""
        if keywords.get("blocks") is None:
            raise CallError(f"kind '{self.kind.name}' needs the argument 'blocks': which blocks of keys may be seen")
        rest = {name: value for name, value in keywords.items() if name != "blocks"}
        count, index = block_lists(self.kind, keywords["blocks"], q.shape[2], k.shape[2], q.shape[0])
        return rest | {"block_count": count, "block_index": index}

    def config(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, kernel: str = "forward") -> Chosen:
        """What would run for these tensors, forward or as a kernel of the backward pass where that is launched
        (``gradient_plans`` says whether), and where that choice comes from."""
        chooser = self._chooser_of(kernel)
        return chooser(q, k, v) if kernel == "forward" else chooser.at(chooser.problem(q, k))

    def gradient_plans(self, batch: int, seq_q: int, seq_k: int) -> tuple[BackwardPlan, ...]:
        """The kernels that make the gradients of q, k and v of a call of these sizes, in order."""
        plans = plan_backward(self.kind)
        if plans.fused is not None and fuses(plans, self._backward, batch, seq_q, seq_k):
            return plans.rows, plans.fused
        return plans.rows, plans.kv, plans.q

    def source(self, kernel: str = "forward", *, batch: int = 1, seq: int = 4096) -> str:
        """The generated code of a kernel, for the config that this machine would run at these sizes.

        ``kernel``: ``forward``, or of the backward pass ``backward_rows``, ``backward_kv``, ``backward_q``,
        ``backward_fused`` or ``backward_elements``.
        """
        chooser = self._chooser_of(kernel)
        problem = Problem(kernel, self.kind.digest(), batch, seq, seq).bucket()
        return render(chooser.plan, chooser.look_up(problem, target_here()).config).text

    @cached_property
    def _backward(self) -> dict[str, Chooser]:
        """The choosers of a backward pass's kernels, none where there is no such pass."""
        return {plan.kernel: Chooser(plan, self._db) for plan in backward_plans_for(self.kind, target_here())}

    def _chooser_of(self, kernel: str) -> Chooser:
        if kernel == self.plan.kernel:
            return self.chooser
        if kernel not in self._backward:
            raise CallError(f"no kernel '{kernel}'; {one_of([self.plan.kernel, *self._backward])} would be right")
        return self._backward[kernel]

    def __repr__(self) -> str:
        return f"<attngen op {self._spec}.{self.kind.name}>"


def unpacked(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A packed tensor as operators take it: (tokens, heads, dim) as (1, heads, tokens, dim), a view."""
    if tensor.dim() != 3:
        raise CallError(f"{name} has shape {tuple(tensor.shape)}; (tokens, heads, dim) is needed")
    return tensor.transpose(0, 1)[None]


def autocast(kind: Kind, tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` in the dtype that kernels of ``kind`` take; what is in 8 bits or 64 stays as it is."""
    castable = tensor.dtype in (torch.float32, torch.bfloat16, torch.float16) and not kind.quantised
    return tensor.to(getattr(torch, kind.torch_dtype)) if castable else tensor

"""The op of a kind that is made of branches: each attends in its own way, and their results are summed by gates."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

import torch

from attngen.database import Database
from attngen.errors import CallError, NotGeneratedError, did_you_mean
from attngen.op.blocks import BlockOp
from attngen.op.checks import check_tensor
from attngen.op.compressed import compressed_range, first_positions, window_means
from attngen.op.gated_forward import SCHEMA, GatedForward
from attngen.op.kind import KindOp
from attngen.op.no_backward import without_backward
from attngen.op.register import latest_operator, operator_name
from attngen.plan.work import compressed_count
from attngen.spec.model import Kind

Tensor = torch.Tensor
Maybe = torch.Tensor | None


class BranchedOp:
    """The op of one kind of attention layer in branches (NSA, arXiv:2502.11089).

    ``branches`` are its branches' ops, by name; each can be called by itself.
    """

    def __init__(self, spec: str, kind: Kind, db: Database | str | None = None) -> None:
        self.kind = kind
        self._spec = spec
        self._db = db
        by_name = {branch.name: branch for branch in kind.branches}
        self.branches: dict[str, KindOp | BlockOp] = {}
        for branch in kind.branches:
            blocks = None if branch.select is None else branch.select.blocks
            name = f"{spec}_{kind.name}"
            self.branches[branch.name] = (
                KindOp(name, branch, db)
                if blocks is None
                else BlockOp(name, branch, db, compressed=None if blocks.by is None else by_name[blocks.by])
            )
        with suppress(NotGeneratedError):  # said when the op is used
            _ = self.operator  # made now, because torch.compile cannot make it in the middle of a graph

    @cached_property
    def operator(self) -> Callable:
        """The torch operator that sums: (the branches' results, gates) -> out."""
        name = f"{operator_name(self._spec, self.kind, self._db)}_sum"
        return latest_operator(name, SCHEMA, GatedForward(self.kind, self._db))

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        gates: Tensor,
        offsets: Maybe = None,
        key_range: Maybe = None,
        return_lse: bool = False,
        **of_branches: Any,
    ) -> Tensor:
        """The sum over branches of gate * attention.

        q: (batch, heads, seq_q, qk dim); k: (batch, kv heads, seq_k, qk dim); v: (batch, kv heads, seq_k, v dim).
        gates: (batch, heads, seq_q, branches), any floating dtype, in the order of the spec's branches.
        of_branches: ``NAME_k`` and ``NAME_v``, keys and values that the branch NAME has for itself; of a branch that
        compresses, the compressed ones, (kv heads, (seq_k - size) // stride + 1), which are means of k and v where they
        are not given; and ``NAME_sink`` and whatever else the branch's op takes. offsets and key_range: as of every
        op, and of all branches.
        Returns out (batch, heads, seq_q, v dim), added up in float32. A branch whose query sees no key adds 0.
        Raises CallError (a ValueError) for what does not fit the spec.
        """
        for name, tensor in (("q", q), ("k", k), ("v", v), ("gates", gates)):
            check_tensor(name, tensor)
        if return_lse:
            raise CallError(
                f"kind '{self.kind.name}' sums branches, and a sum has no lse; call its branches for theirs"
            )
        keywords = self._by_branch(of_branches)
        wanted = (*q.shape[:3], len(self.branches))
        if tuple(gates.shape) != wanted or not gates.is_floating_point():
            names = ", ".join(self.branches)
            raise CallError(
                f"gates is {tuple(gates.shape)} of {gates.dtype}; {wanted} is needed, one for each of {names}"
            )
        seq_k = k.shape[2]
        placed: dict[str, Any] = {"offsets": offsets, "key_range": key_range}
        compressed: dict[str, tuple[Tensor, Tensor]] = {}  # keys, and the lse they gave
        results: dict[str, Tensor] = {}
        for name, op in sorted(self.branches.items(), key=lambda item: isinstance(item[1], BlockOp)):
            own = keywords[name]
            branch_k, branch_v = own.pop("k", None), own.pop("v", None)
            if (branch_k is None) != (branch_v is None):
                raise CallError(f"'{name}_k' and '{name}_v' are given together")
            if op.kind.compress is not None:
                size, stride = op.kind.compress.size, op.kind.compress.stride
                if branch_k is None or branch_v is None:
                    branch_k, branch_v = window_means(k, size, stride), window_means(v, size, stride)
                if branch_k.shape[2] != (count := compressed_count(op.kind.compress, seq_k)):
                    raise CallError(f"'{name}_k' has {branch_k.shape[2]} keys; {count} stand for {seq_k}")
                at = {
                    "offsets": first_positions(q, seq_k, offsets),
                    "key_range": compressed_range(seq_k, size, stride, key_range),
                }
                results[name], lse = op(q, branch_k, branch_v, return_lse=True, **at, **own)
                compressed[name] = branch_k, lse
                continue
            branch_k, branch_v = (k, v) if branch_k is None else (branch_k, branch_v)
            if isinstance(op, BlockOp) and op.by is not None and "blocks" not in own and not op.takes_all(seq_k):
                scoring, lse = compressed[op.by]
                own["blocks"] = op.select(q, scoring, lse=lse, seq_k=seq_k, **placed)
            results[name] = op(q, branch_k, branch_v, **placed, **own)
        return without_backward(self._summed, self.kind.name, *(results[name] for name in self.branches), gates)

    def _summed(self, *results_and_gates: Tensor) -> Tensor:
        return self.operator(list(results_and_gates[:-1]), results_and_gates[-1])

    def _by_branch(self, given: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Keywords of each branch; CallError for one that is no branch's."""
        out: dict[str, dict[str, Any]] = {name: {} for name in self.branches}
        for keyword, value in given.items():
            name = next((name for name in sorted(out, key=len, reverse=True) if keyword.startswith(f"{name}_")), None)
            if name is None:
                known = [f"{branch}_{what}" for branch in out for what in "kv"]
                raise CallError(
                    f"kind '{self.kind.name}' takes no argument '{keyword}'; {did_you_mean(keyword, known)}"
                )
            if value is not None:
                out[name][keyword.removeprefix(f"{name}_")] = value
        return out

    def __getattr__(self, name: str) -> KindOp | BlockOp:
        branches = self.__dict__.get("branches", {})
        if name in branches:
            return branches[name]
        raise AttributeError(
            f"kind '{self.__dict__['kind'].name}' has no branch '{name}'; {did_you_mean(name, branches)}"
        )

    def __repr__(self) -> str:
        return f"<attngen op {self._spec}.{self.kind.name}: {', '.join(self.branches)}>"

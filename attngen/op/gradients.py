"""The gradients of a call, by kernels on a GPU and by the reference on a CPU."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from attngen import reference
from attngen.database import Database
from attngen.errors import NotGeneratedError
from attngen.op.arguments import empty_rows
from attngen.op.checks import MAX_STRIDE, keywords_of
from attngen.op.fused import fuses
from attngen.op.gradient_launch import (
    Call,
    ElementsLauncher,
    FusedLauncher,
    KeysLauncher,
    QueriesLauncher,
    Rows,
    RowsLauncher,
)
from attngen.op.kernels import Launchers
from attngen.op.launch import Kept
from attngen.op.learned import Gradient, Positions
from attngen.plan.backward import OF_PAIRS, OF_ROWS, plan_backward
from attngen.spec.learned import Learned, learned_arguments, learned_reads, read_by_score
from attngen.spec.model import Kind

Tensor = torch.Tensor
INPUTS = ("q", "k", "v")


@dataclass(frozen=True)
class Prepared:
    """What is launched for calls of one signature: ``fused``, or ``keys`` and ``queries`` where something they make is
    wanted."""

    asked: Collection[str]
    of_sink: bool  # whether the sink's gradient is
    keep_dlse: bool  # whether some are sums over keys, which need what the gradient of lse takes of delta
    reads: Mapping[int, Learned]  # whose gradients are asked for, by their numbers
    rows: RowsLauncher
    fused: FusedLauncher | None
    keys: KeysLauncher | None
    queries: QueriesLauncher | None
    elements: ElementsLauncher | None


class Gradients:
    """What the operator of a kind's backward pass does on each device.

    (dout, dlse or None, q, k, v, out, lse, the op's keywords in order, wanted) -> a tensor for each of ``names``: the
    gradient where it is wanted, else one of no elements. Kernels keep float32 of queries x heads, twice, while they
    run, once more for each read that is summed over keys, and once where lse has a gradient beside those; reads whose
    place depends on both positions use strips of ``STRIP_BYTES`` besides, and a kernel that makes dq beside dk and dv
    float32 as many as q has elements.
    """

    def __init__(self, kind: Kind, db: Database | str | None) -> None:
        self._plans = plans = plan_backward(kind)
        self.kind = kind
        self._lost = read_by_score(kind)
        self.names = (*INPUTS, *learned_arguments(kind), *self._lost)
        self._keywords = keywords_of(plans.q)
        self._learned = learned_reads(kind)
        self._rows, self._kv, self._q = (Launchers(plan, db) for plan in (plans.rows, plans.kv, plans.q))
        self._fused = None if plans.fused is None else Launchers(plans.fused, db)
        self._elements = None if plans.elements is None else Launchers(plans.elements, db)
        self._kept: Kept[Prepared] = Kept()

    def check(self, wanted: Sequence[bool]) -> None:
        """NotGeneratedError for gradients that are ``wanted`` and that no kernel makes; on a CPU too, so that what
        trains there does on a GPU."""
        asked = self._asked(wanted)
        for name in self._lost:
            if name in asked:
                raise NotGeneratedError(
                    f"kind '{self.kind.name}': the gradient of '{name}', whose place depends on the score, is not "
                    f"generated; give {name}.detach()"
                )
        reads = [read for read in self._learned if read.argument in asked and read.along in OF_PAIRS]
        if reads and self.kind.documents:
            raise NotGeneratedError(
                f"kind '{self.kind.name}': the gradient of '{reads[0].argument}', whose place depends on the query and "
                "the key, is not generated for packed documents"
            )

    def cuda(self, dout: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> list[Tensor]:
        """By kernels."""
        out, lse, *extras, wanted = rest
        given = dict(zip(self._keywords, extras, strict=True))
        call = Call(readable(q), k, v, readable(dout), given)
        key = (call.signature, *wanted)
        prepared = self._kept.get(key)
        if prepared is None:
            prepared = self._kept.keep(key, self._prepare(call, wanted))
        reads, keep = prepared.reads, {"keep_dlse": prepared.keep_dlse, "sink_shares": prepared.of_sink}
        dlse = None if dlse is None else dlse.contiguous()  # autograd gives sums' as one number, and permuted ones
        rows = prepared.rows(out, call.dout, lse, dlse, given.get("sink"), **keep)
        made: dict[str, Tensor] = {}
        sums: dict[int, Tensor] = {}
        if prepared.fused is not None:
            made["k"], made["v"], made["q"], _ = prepared.fused(call, rows)
        if prepared.keys is not None:
            made["k"], made["v"], of_keys = prepared.keys(call, rows, reads)
            sums |= of_keys or {}
        if prepared.queries is not None:
            made["q"], of_queries = prepared.queries(call, rows, reads)
            sums |= of_queries or {}
        if rows.sink_shares is not None:
            made["sink"] = rows.sink_shares.sum((0, 2)).to(given["sink"].dtype)
        if reads:
            made |= self._of_reads(prepared, call, rows, sums)
        return self._results(made, prepared.asked, q)

    def cpu(self, dout: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> list[Tensor]:
        """By the reference, in float64."""
        given, asked = self._named(q, k, v, rest)
        exact = reference.gradients(self.kind, dout, dlse, **given)
        made = {name: self._empty(given, name).copy_(exact[name]) for name in asked}
        return self._results(made, asked, q)

    def fake(self, dout: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> list[Tensor]:
        """Gradients of the right shapes, not computed."""
        given, asked = self._named(q, k, v, rest)
        return self._results({name: self._empty(given, name) for name in asked}, asked, q)

    def _fuses(self, batch: int, seq_q: int, seq_k: int) -> bool:
        """Whether one kernel makes all gradients of calls of these sizes."""
        launchers = (self._fused, self._kv, self._q)
        choosers = {made.plan.kernel: made.chooser for made in launchers if made is not None}
        return fuses(self._plans, choosers, batch, seq_q, seq_k)

    def _named(self, q: Tensor, k: Tensor, v: Tensor, rest: Sequence[Any]) -> tuple[dict[str, Any], set[str]]:
        """Everything that the call was given, and the names of the gradients that are asked for."""
        _, _, *extras, wanted = rest
        return {"q": q, "k": k, "v": v, **dict(zip(self._keywords, extras, strict=True))}, self._asked(wanted)

    def _asked(self, wanted: Sequence[bool]) -> set[str]:
        return {name for name, want in zip(self.names, wanted, strict=True) if want}

    def _prepare(self, call: Call, wanted: Sequence[bool]) -> Prepared:
        """What makes the gradients that are ``wanted``."""
        asked = self._asked(wanted)
        reads = {read.index: read for read in self._learned if read.argument in asked}
        along = {read.along for read in reads.values()}
        sizes = (call.q.shape[0], call.q.shape[2], call.k.shape[2])
        described = call.can_be_described()
        fused = keys = queries = elements = None
        together = described and "q" in asked and not asked.isdisjoint(("k", "v"))
        if together and self._fused is not None and self._fuses(*sizes):
            fused = self._fused.at(*sizes)
        elif asked & {"k", "v"} or "key" in along:
            keys = self._kv.at(*sizes, gluon=described and not self._plans.kv.makes(reads))
        if fused is None and ("q" in asked or not along.isdisjoint(OF_ROWS)):
            queries = self._q.at(*sizes, gluon=described and not self._plans.q.makes(reads))
        if self._elements is not None and not along.isdisjoint(OF_PAIRS):
            elements = self._elements.at(*sizes)
        keep_dlse = not along.isdisjoint(OF_ROWS)
        return Prepared(asked, "sink" in asked, keep_dlse, reads, self._rows.at(*sizes), fused, keys, queries, elements)

    def _of_reads(self, prepared: Prepared, call: Call, rows: Rows, sums: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """Gradients of what scores read, of sums that are made and of shares that are made here."""
        positions = Positions(call)
        reads = prepared.reads.values()
        gradients = {name: Gradient(call.given[name], positions) for name in {read.argument for read in reads}}
        for read in reads:
            gradient = gradients[read.argument]
            if prepared.elements is None or read.along not in OF_PAIRS:
                gradient.add_rows(read, sums[read.index])
            elif call.q.numel() and call.k.numel():
                gradient.add_elements(read, prepared.elements, call, rows)
        return {name: gradient.done() for name, gradient in gradients.items()}

    def _results(self, made: Mapping[str, Tensor], asked: Collection[str], q: Tensor) -> list[Tensor]:
        return [made[name] if name in asked else q.new_empty(0) for name in self.names]

    def _empty(self, given: Mapping[str, Any], name: str) -> Tensor:
        tensor: Tensor = given[name]
        return empty_rows(tensor) if name in INPUTS else tensor.new_empty(tensor.shape)


def readable(tensor: Tensor) -> Tensor:
    """q, or the gradient of out, as kernels take it: one that autograd has expanded is copied, and one whose rows are
    too far apart for tiles of them to be counted in 32 bits."""
    side_by_side = tensor.stride(-1) == 1 or tensor.shape[-1] == 1
    return tensor if side_by_side and tensor.stride(2) <= MAX_STRIDE else empty_rows(tensor).copy_(tensor)

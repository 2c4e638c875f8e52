"""The gradients of a call, by kernels on a GPU and by the reference on a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from attngen import reference
from attngen.database import Database
from attngen.errors import NotGeneratedError
from attngen.op.checks import keywords_of
from attngen.op.gradient_launch import Call, Rows, by_key, empty_like_rows
from attngen.op.kernels import Launchers
from attngen.op.learned import Gradient, Positions
from attngen.plan.backward import plan_backward
from attngen.spec.learned import Learned, learned_arguments, learned_reads
from attngen.spec.model import Kind

Tensor = torch.Tensor
INPUTS = ("q", "k", "v")


class Gradients:
    """What the operator of a kind's backward pass does on each device.

    (dout, dlse or None, q, k, v, out, lse, the op's keywords in order, wanted) -> a tensor for each of ``names``: the
    gradient where it is wanted, else one of no elements. Kernels keep float32 of queries x heads, twice, while they
    run; reads whose place depends on both positions use strips of ``STRIP_BYTES`` besides.
    """

    def __init__(self, kind: Kind, db: Database | str | None) -> None:
        self._plans = plans = plan_backward(kind)
        self.kind = kind
        self.names = (*INPUTS, *learned_arguments(kind))
        self._keywords = keywords_of(plans.q)
        self._learned = learned_reads(kind)
        self._rows, self._kv, self._q = (Launchers(plan, db) for plan in (plans.rows, plans.kv, plans.q))
        self._elements = None if plans.elements is None else Launchers(plans.elements, db)

    def cuda(self, dout: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> list[Tensor]:
        """By kernels."""
        out, lse, *extras, wanted = rest
        given = dict(zip(self._keywords, extras, strict=True))
        asked = {name for name, want in zip(self.names, wanted, strict=True) if want}
        call = Call(q, k, v, with_unit_stride(dout), tuple(extras))
        sizes = (q.shape[0], q.shape[2], k.shape[2])
        rows: Rows = self._rows.at(*sizes)(out, call.dout, lse, dlse, given.get("sink"), sink_shares="sink" in asked)
        reads = {read.index: read for read in self._learned if read.argument in asked}
        if self.kind.documents:
            self._refuse_elements(reads.values())
        described = call.can_be_described()
        made: dict[str, Tensor] = {}
        sums: dict[int, Tensor] = {}
        if asked & {"k", "v"} or any(read.along == "key" for read in reads.values()):
            launch = self._kv.at(*sizes, gluon=described and not self._plans.kv.makes(reads))
            made["k"], made["v"], of_keys = launch(by_key(self._plans.kv, call), rows, reads)
            sums |= of_keys
        if "q" in asked or any(read.along in ("none", "query") for read in reads.values()):
            launch = self._q.at(*sizes, gluon=described and not self._plans.q.makes(reads))
            made["q"], by_query = launch(call, rows, reads)
            sums |= by_query
        if rows.sink_shares is not None:
            made["sink"] = rows.sink_shares.sum((0, 2)).to(given["sink"].dtype)
        if reads:
            positions = Positions(call, given)
            gradients = {name: Gradient(given[name], positions) for name in {read.argument for read in reads.values()}}
            for read in reads.values():
                gradient = gradients[read.argument]
                if read.index in sums:
                    gradient.add_rows(read, sums[read.index])
                elif self._elements is not None and q.numel() and k.numel():
                    gradient.add_elements(read, self._elements.at(*sizes), call, rows)
            made |= {name: gradient.done() for name, gradient in gradients.items()}
        return self._results(made, asked, q)

    def cpu(self, dout: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> list[Tensor]:
        """By the reference, in float64."""
        _, _, *extras, wanted = rest
        given = {"q": q, "k": k, "v": v, **dict(zip(self._keywords, extras, strict=True))}
        asked = {name for name, want in zip(self.names, wanted, strict=True) if want}
        exact = reference.gradients(self.kind, dout, dlse, **given)
        made = {name: self._empty(given, name).copy_(exact[name]) for name in asked}
        return self._results(made, asked, q)

    def fake(self, dout: Tensor, dlse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> list[Tensor]:
        """Gradients of the right shapes, not computed."""
        _, _, *extras, wanted = rest
        given = {"q": q, "k": k, "v": v, **dict(zip(self._keywords, extras, strict=True))}
        asked = {name for name, want in zip(self.names, wanted, strict=True) if want}
        return self._results({name: self._empty(given, name) for name in asked}, asked, q)

    def _refuse_elements(self, reads: Iterable[Learned]) -> None:
        for read in reads:
            if read.along in ("distance", "both"):
                raise NotGeneratedError(
                    f"kind '{self.kind.name}': the gradient of '{read.argument}', whose place depends on the query and "
                    "the key, is not generated for packed documents"
                )

    def _results(self, made: Mapping[str, Tensor], asked: set[str], q: Tensor) -> list[Tensor]:
        return [made[name] if name in asked else q.new_empty(0) for name in self.names]

    def _empty(self, given: Mapping[str, Any], name: str) -> Tensor:
        tensor: Tensor = given[name]
        return empty_like_rows(tensor) if name in INPUTS else tensor.new_empty(tensor.shape)


def with_unit_stride(tensor: Tensor) -> Tensor:
    """``tensor`` as kernels take it; one that autograd has expanded is copied."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()

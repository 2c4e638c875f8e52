"""The op of a kind that selects keys by its kernels, in a process whose Triton interprets."""

from __future__ import annotations

from dataclasses import dataclass
from unittest.mock import patch

import torch

from attngen.spec.model import Kind
from tests.op.cases import l2_error


@dataclass(frozen=True)
class SparseCase:
    """``kind`` at some sizes, and where its configs are looked up."""

    kind: Kind
    db: str
    seq_q: int
    seq_k: int
    batch: int = 2
    key_range: tuple[tuple[int, int], ...] | None = None
    offsets: tuple[int, ...] | None = None
    workspace_bytes: int = 2**28
    lengths: tuple[int, ...] | None = None  # how many entries count of the lists that are given, one a query


def run_sparse(case: SparseCase) -> tuple[list[str], float, float]:
    """Which kernels were launched, and the errors: of out, relative L2, and of lse. The keys are those that a
    selection by the reference takes."""
    from attngen import reference
    from attngen.inputs_sparse import make_index, make_indices
    from attngen.op import Selector, choose
    from attngen.op.bound import Bound
    from attngen.op.launch import Prepared
    from attngen.op.sparse_forward import Call, SparseForward
    from attngen.plan import plan_gathered
    from attngen.target import get_target

    torch.set_num_threads(1)
    kind = case.kind
    sizes = case.batch, case.seq_q, case.seq_k
    given = make_indices(kind, *sizes, device="cpu")
    lists = given.pop("indices")
    placed = {
        name: torch.tensor(value, dtype=torch.int32)
        for name, value in (("offsets", case.offsets), ("key_range", case.key_range))
        if value is not None
    }
    index = make_index(kind, *sizes, device="cpu")
    launched = []

    def noting(call, name):
        def noted(self, *arguments):
            launched.append(name(self))
            return call(self, *arguments)

        return noted

    with (
        patch.object(choose, "target_here", lambda: get_target("a100")),
        patch.object(Bound, "__call__", noting(Bound.__call__, lambda bound: bound.source.entry)),
        patch.object(Prepared, "__call__", noting(Prepared.__call__, lambda prepared: prepared.source.entry)),
    ):
        selector = Selector(kind, case.db, case.workspace_bytes)
        if case.lengths is None:
            call = Call(**given, **index, **placed)
        else:
            counted = torch.tensor(case.lengths, dtype=torch.int32).expand(case.batch, -1).contiguous()
            call = Call(**given, indices=lists, topk_length=counted, **placed)
        out, lse = SparseForward(plan_gathered(kind), selector, case.db).cuda(*call)
    listed = {}
    if case.lengths is not None:
        listed = {"indices": lists.where(torch.arange(lists.shape[-1]) < counted[..., None], -1)}
    elif case.seq_k > selector.top_k:
        listed = {"indices": selector.cpu(*index.values(), **placed)}
    exact, exact_lse = reference.attention(kind, **given, **placed, **listed)
    unseen = torch.isneginf(exact_lse)
    assert torch.equal(torch.isneginf(lse), unseen)
    return launched, l2_error(out, exact), float((lse - exact_lse).masked_fill(unseen, 0.0).abs().max())

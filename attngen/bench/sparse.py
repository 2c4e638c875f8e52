"""Sparse attention, measured: an indexer's logits, those and their selection, attention over lists, and blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from attngen.bench.blocks import block_call, block_choice
from attngen.bench.peers import Call, missing_module
from attngen.bench.sparse_cases import BLOCKS, GATHERED, INDEXER, INDEXER_SELECT, SparseCase
from attngen.database import Database
from attngen.inputs import make_inputs
from attngen.inputs_sparse import make_indices, make_quantised_index
from attngen.op.choose import Chosen
from attngen.op.kernels import launcher_of
from attngen.op.kind import KindOp
from attngen.op.selector import Index, Selector
from attngen.op.sparse import SparseOp
from attngen.plan.indexer import plan_indexer
from attngen.report.sparse import without_selection
from attngen.tuner.checks import WrongAnswer
from attngen.tuner.kernel import checks_of


class SparseInputs:
    """What ours and the peers of a case are given: the same tensors."""

    def __init__(self, case: SparseCase, device: str) -> None:
        self.case = case
        self._device = device

    @cached_property
    def index(self) -> dict[str, torch.Tensor]:
        """Quantised queries and keys, weights and bounds."""
        case = self.case
        return make_quantised_index(plan_indexer(case.kind), case.batch, case.seq_q, case.seq_k, device=self._device)

    @cached_property
    def lists(self) -> dict[str, Any]:
        """Queries, keys and a list of keys for each query."""
        case = self.case
        return make_indices(case.kind, case.batch, case.seq_q, case.seq_k, device=self._device)

    @cached_property
    def heads(self) -> dict[str, torch.Tensor]:
        """Queries, keys and values of heads."""
        case = self.case
        whole = without_selection(case.kind)
        return make_inputs(whole, case.batch, case.seq_q, case.seq_k, device=self._device)


def our_call(case: SparseCase, inputs: SparseInputs, db: Database | None) -> Call:
    """Our call, once its answers are right: a wrong kernel has no time."""
    if case.suite == BLOCKS:
        return block_call(case, inputs.heads, db)
    if case.suite == GATHERED:
        op, lists = SparseOp(case.spec, case.kind, db), inputs.lists
        _check(op.plan, op.config(lists["q"], lists["k"]), case)
        return lambda: op(lists["q"], lists["k"], lists["v"], indices=lists["indices"])
    selector = Selector(case.kind, db)
    index = inputs.index
    plan = plan_indexer(case.kind)
    chosen = selector.config("indexer", case.batch, case.seq_q, case.seq_k)
    _check(plan, chosen, case)
    if case.suite == INDEXER:
        launcher = launcher_of(plan, chosen.config)
        out = launcher.empty_logits(index["q"], index["k"])
        return lambda: launcher(**index, out=out)
    scored = Index(index["q"], index["k"], index["w"], index["k_scale"])
    return lambda: selector.select(scored, index["key_first"], index["key_end"])


def our_choice(case: SparseCase, inputs: SparseInputs, db: Database | None) -> Chosen:
    """The config of the suite's kernel, and where it comes from."""
    if case.suite == BLOCKS:
        return block_choice(case, db)
    if case.suite == GATHERED:
        return SparseOp(case.spec, case.kind, db).config(inputs.lists["q"], inputs.lists["k"])
    return Selector(case.kind, db).config("indexer", case.batch, case.seq_q, case.seq_k)


def _dense(inputs: SparseInputs) -> Call:
    """The same heads' attention to every key, by our own kernel."""
    op, heads = KindOp(inputs.case.spec, without_selection(inputs.case.kind)), inputs.heads
    return lambda: op(heads["q"], heads["k"], heads["v"])


def _check(plan: Any, chosen: Chosen, case: SparseCase) -> None:
    if torch.cuda.is_available():
        checks = checks_of(plan, case.problem)
        if fault := checks.find_fault(launcher_of(plan, chosen.config)):
            raise WrongAnswer(fault)


def _deep_gemm(inputs: SparseInputs, clean: bool = False) -> Callable[[], torch.Tensor]:
    import deep_gemm  # type: ignore[import-not-found]

    index = {name: tensor[0] for name, tensor in inputs.index.items()}
    keys = (index["k"], index["k_scale"])
    rest = (index["w"], index["key_first"], index["key_end"])
    return lambda: deep_gemm.fp8_mqa_logits(index["q"], keys, *rest, clean_logits=clean)


def _deep_gemm_topk(inputs: SparseInputs) -> Call:
    """Rows are taken whole, as is usual: what lies past a row's keys is made -inf first."""
    select = inputs.case.kind.select
    assert select is not None and select.top_k is not None
    logits, top_k = _deep_gemm(inputs, clean=True), select.top_k
    return lambda: torch.topk(logits(), top_k, dim=-1)


def _flash_mla(inputs: SparseInputs) -> Call:
    from flash_mla import flash_mla_sparse_fwd  # type: ignore[import-not-found]

    lists, kind = inputs.lists, inputs.case.kind
    q, kv = (lists[name][0].transpose(0, 1).contiguous() for name in "qk")
    indices = lists["indices"][0][:, None]
    return lambda: flash_mla_sparse_fwd(q, kv, indices, kind.scale)


@dataclass(frozen=True)
class SparsePeer:
    """A system that does one suite's work."""

    name: str
    title: str
    suite: str
    module: str
    make: Callable[[SparseInputs], Call]

    def missing(self) -> str:
        """Why it cannot be used here, or nothing."""
        return missing_module(self.module)


SPARSE_PEERS: Mapping[str, SparsePeer] = {
    peer.name: peer
    for peer in (
        SparsePeer("deep_gemm", "DeepGEMM", INDEXER, "deep_gemm", _deep_gemm),
        SparsePeer("deep_gemm+topk", "DeepGEMM + torch.topk", INDEXER_SELECT, "deep_gemm", _deep_gemm_topk),
        SparsePeer("flash_mla", "FlashMLA", GATHERED, "flash_mla", _flash_mla),
        SparsePeer("dense", "attngen, all keys", BLOCKS, "attngen", _dense),
    )
}

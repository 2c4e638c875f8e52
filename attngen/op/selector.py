"""The keys that an indexer selects: quantised, scored and selected in chunks of queries that fit a workspace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from attngen import reference
from attngen.database import Database
from attngen.errors import CallError, one_of
from attngen.op.checks import check_tensor
from attngen.op.choose import Chosen, target_here
from attngen.op.index_checks import SOURCES, check_index
from attngen.op.indexer import describable
from attngen.op.kernels import Launchers
from attngen.op.key_bounds import key_bounds
from attngen.op.quantise import QuantiseLauncher
from attngen.op.register import latest_operator, operator_name
from attngen.plan import Plan
from attngen.plan.indexer import IndexDtype, indexer_of, plan_indexer
from attngen.plan.kernels import index_dtype
from attngen.plan.quantise import plan_quantise
from attngen.plan.select import plan_select
from attngen.problem import Problem
from attngen.source import render
from attngen.spec.model import Kind

WORKSPACE_BYTES = 256 * 2**20  # of scores, at most
COLUMNS = 256  # rows of scores are a multiple of so many apart
LEAST_ROWS = 8  # queries of a chunk, however long its rows
SCHEMA = (
    "(Tensor index_q, Tensor index_k, Tensor index_weights, int workspace_bytes, Tensor? offsets=None, "
    "Tensor? key_range=None) -> Tensor"
)
Part = tuple[slice, slice]  # sequences, queries


@dataclass(frozen=True)
class Index:
    """What an indexer scores: q (batch, seq_q, heads, dim), k (batch, seq_k, dim) with a scale each where it is
    quantised, and float32 weights (batch, seq_q, heads), in which the scales of q are."""

    q: torch.Tensor
    k: torch.Tensor
    weights: torch.Tensor
    k_scale: torch.Tensor | None


class Selector:
    """Which keys each query of a kind attends to: those with the largest scores of the kind's indexer.

    ``workspace_bytes`` bounds the memory of the scores: queries go through it in chunks.
    """

    def __init__(self, kind: Kind, db: Database | str | None = None, workspace_bytes: int = WORKSPACE_BYTES) -> None:
        self.kind = kind
        self.indexer = indexer_of(kind)
        self.workspace_bytes = workspace_bytes
        self.plan = plan_select(kind)
        self._db = db
        self._launchers: dict[Plan, Launchers] = {}
        self.operator = latest_operator(operator_name("select", kind, db), SCHEMA, self)

    @property
    def top_k(self) -> int:
        """Keys of a query, at most."""
        return self.plan.top_k

    def __call__(
        self,
        index_q: torch.Tensor,
        index_k: torch.Tensor,
        index_weights: torch.Tensor,
        *,
        offsets: torch.Tensor | None = None,
        key_range: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The keys with the largest scores, int32 (batch, seq_q, top_k), in ascending order and then -1.

        index_q: (batch, indexer heads, seq_q, indexer dim); index_k: (batch, seq_k, indexer dim), both bfloat16,
        float16 or float32, and quantised as the spec says; index_weights: (batch, seq_q, indexer heads), any floating
        dtype. offsets and key_range: as of every op.
        The score of a key is the sum over heads of weight * relu(q . k) (DeepSeek-V3.2); ties go to the lowest key.
        No gradient passes a selection. CPU tensors take the float64 reference.
        Raises CallError (a ValueError) for what does not fit the spec.
        """
        for name, tensor in (("index_q", index_q), ("index_k", index_k), ("index_weights", index_weights)):
            check_tensor(name, tensor)
        for name, given in (("offsets", offsets), ("key_range", key_range)):
            if given is not None:
                check_tensor(name, given)
        return self.operator(index_q, index_k, index_weights, self.workspace_bytes, offsets, key_range)

    def cuda(
        self,
        index_q: torch.Tensor,
        index_k: torch.Tensor,
        index_weights: torch.Tensor,
        workspace_bytes: int,
        offsets: torch.Tensor | None = None,
        key_range: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The operator by its kernels."""
        check_index(self.indexer, index_q, index_k, index_weights, offsets, key_range)
        batch, _, seq_q, _ = index_q.shape
        first, end = key_bounds(self.kind, batch, seq_q, index_k.shape[1], index_q.device, offsets, key_range)
        return self.select(self.quantised(index_q, index_k, index_weights), first, end, workspace_bytes)

    def cpu(
        self,
        index_q: torch.Tensor,
        index_k: torch.Tensor,
        index_weights: torch.Tensor,
        workspace_bytes: int = WORKSPACE_BYTES,
        offsets: torch.Tensor | None = None,
        key_range: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The operator by the reference."""
        check_index(self.indexer, index_q, index_k, index_weights, offsets, key_range)
        index = self.quantised(index_q, index_k, index_weights)
        batch, _, seq_q, _ = index_q.shape
        scores = reference.index_scores(index.q.transpose(1, 2), index.k, index.weights, k_scale=index.k_scale)
        first, end = reference.key_bounds(
            self.kind, seq_q, index_k.shape[1], batch, offsets=offsets, key_range=key_range, device=index_q.device
        )
        plan = self.plan
        made = reference.select_keys(
            scores.flatten(0, 1), first.flatten(), end.flatten(), plan.top_k, first=plan.first, last=plan.last
        )
        return made.reshape(batch, seq_q, plan.top_k)

    def fake(
        self,
        index_q: torch.Tensor,
        index_k: torch.Tensor,
        index_weights: torch.Tensor,
        workspace_bytes: int,
        offsets: torch.Tensor | None = None,
        key_range: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The operator's result, not computed."""
        check_index(self.indexer, index_q, index_k, index_weights, offsets, key_range)
        return index_q.new_empty((index_q.shape[0], index_q.shape[2], self.top_k), dtype=torch.int32)

    def quantised(self, index_q: torch.Tensor, index_k: torch.Tensor, index_weights: torch.Tensor) -> Index:
        """Queries, keys and weights as they are scored: in FP8 where the spec says so and the GPU has it."""
        dtype = self._dtype(index_q.device)
        made = []
        for x in (index_q.transpose(1, 2), index_k):
            if dtype != "float8_e4m3":
                x = x.to(getattr(torch, dtype))
            plan = plan_quantise(self.kind, dtype=dtype, source=SOURCES[x.dtype], rotate=self.indexer.hadamard)
            rows = x.numel() // max(x.shape[-1], 1)
            launcher = QuantiseLauncher(plan) if plan.identity else self._of(plan).at(1, max(rows, 1), 1)
            made.append(launcher(x))
        (q, q_scale), (k, k_scale) = made
        weights = index_weights.float()
        scaled = dtype == "float8_e4m3"
        return Index(
            q.contiguous(), k, (weights * q_scale if scaled else weights).contiguous(), k_scale if scaled else None
        )

    def select(
        self, index: Index, first: torch.Tensor, end: torch.Tensor, workspace_bytes: int | None = None
    ) -> torch.Tensor:
        """The selection among each query's keys, from ``first`` to before ``end``, int32 (batch, seq_q)."""
        workspace = self.workspace_bytes if workspace_bytes is None else workspace_bytes
        batch, seq_q = first.shape
        seq_k = index.k.shape[1]
        scoring, choosing = self._plans(index.q.device)
        score = self._of(scoring).at(batch, seq_q, seq_k, gluon=describable(index.k))
        choose = self._of(choosing).at(batch, seq_q, seq_k)
        out = torch.empty(batch, seq_q, self.top_k, dtype=torch.int32, device=first.device)
        columns = max(-(-seq_k // COLUMNS), 1) * COLUMNS
        scores: torch.Tensor | None = None
        for part in chunks(batch, seq_q, workspace // (4 * columns)):
            bounds = [bound[part].contiguous() for bound in (first, end)]
            if scores is None:  # the first chunk is the largest
                scores = torch.empty(*bounds[0].shape, columns, dtype=torch.float32, device=first.device)
            made = scores[: bounds[0].shape[0], : bounds[0].shape[1]]
            k_scale = None if index.k_scale is None else index.k_scale[part[0]]
            score(index.q[part], index.k[part[0]], index.weights[part], *bounds, k_scale=k_scale, out=made)
            choose(made.flatten(0, 1), *(bound.flatten() for bound in bounds), out=out[part].flatten(0, 1))
        return out

    def config(self, kernel: str, batch: int, seq_q: int, seq_k: int) -> Chosen:
        """What would run of "indexer" or "select" at these sizes, and where that choice comes from."""
        plan = self._plan_of(kernel)
        return self._of(plan).chooser.at(Problem(kernel, self.kind.digest(), batch, seq_q, seq_k))

    def source(self, kernel: str, batch: int, seq: int) -> str:
        """The generated code of "indexer" or "select", for what this machine would run at these sizes."""
        return render(self._plan_of(kernel), self.config(kernel, batch, seq, seq).config).text

    def _plans(self, device: torch.device) -> tuple[Plan, Plan]:
        return plan_indexer(self.kind, dtype=self._dtype(device)), self.plan

    def _plan_of(self, kernel: str) -> Plan:
        plans = {plan.kernel: plan for plan in self._plans(torch.device("cuda"))}
        if kernel not in plans:
            raise CallError(f"no kernel '{kernel}'; {one_of(['gathered', *plans])} is generated")
        return plans[kernel]

    def _dtype(self, device: torch.device) -> IndexDtype:
        """The spec's, but where the GPU has no FP8, what its numbers fit into."""
        return index_dtype(self.kind, target_here()) if device.type == "cuda" else self.indexer.dtype

    def _of(self, plan: Plan) -> Launchers:
        if plan not in self._launchers:
            self._launchers[plan] = Launchers(plan, self._db)
        return self._launchers[plan]


def chunks(batch: int, seq_q: int, rows: int) -> Iterator[Part]:
    """Sequences and queries, at most ``rows`` queries at a time but for LEAST_ROWS: whole sequences, or parts of one of
    about equal length. The first is as large as any."""
    if seq_q == 0:
        return
    together = rows // seq_q
    if together > 0:
        for start in range(0, batch, together):
            yield slice(start, min(start + together, batch)), slice(0, seq_q)
        return
    most = max(rows // LEAST_ROWS * LEAST_ROWS, LEAST_ROWS)
    length = -(-seq_q // -(-seq_q // most) // LEAST_ROWS) * LEAST_ROWS
    for b in range(batch):
        for start in range(0, seq_q, length):
            yield slice(b, b + 1), slice(start, min(start + length, seq_q))

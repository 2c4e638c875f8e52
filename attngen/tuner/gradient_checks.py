"""Whether a candidate of a backward pass's kernel computes the right thing: inputs of its problem, the reference's
gradients of a small one in whole and of a few strips of the problem's own sizes, and the same bits twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from attngen import reference
from attngen.inputs import make_inputs
from attngen.op.checks import keywords_of
from attngen.op.gradient_launch import Strip
from attngen.op.kind import KindOp
from attngen.op.learned import Positions, strips
from attngen.plan.backward import BackwardPlan
from attngen.plan.backward_work import queries_of_keys
from attngen.problem import Problem
from attngen.tuner.checks import CHECK_BATCH, CHECK_KV_HEADS, CHECK_SEQ_K, CHECK_SEQ_Q, STRIP
from attngen.verify.gradients import STRIP as TILE
from attngen.verify.gradients import BackwardPass, Share, answers, kernel_inputs, last_strip, named_results

MOST_PAIRS = 2**31  # of queries and keys, for the reference of one strip: a second of a GPU
NO_DATABASE = "sqlite://"  # in memory: configs are those that are shipped, or defaults


@dataclass(frozen=True)
class Part:
    """Some of a kernel's results at the problem's sizes, and what they must be."""

    right: dict[str, Share]
    of: Callable[[str, torch.Tensor], torch.Tensor]  # a named result's part


class GradientChecks:
    """Inputs of one kernel at its problem's sizes, ``inputs``, and at small ragged ones, with the reference's answers.

    The gradient of lse is there at small sizes. Gradients of keys need every query that sees them: those of the first
    and the last few keys are compared, of the first KV head, where the reference can afford that.
    """

    def __init__(self, plan: BackwardPlan, problem: Problem, device: str = "cuda") -> None:
        self.plan = plan
        kind = plan.kind
        kv = min(kind.heads.kv, CHECK_KV_HEADS)
        sizes = (CHECK_BATCH, CHECK_SEQ_Q, CHECK_SEQ_K)
        given = make_inputs(kind, *sizes, device=device, seed=1, heads=(kv * kind.heads.group, kv))
        out, lse = reference.attention(kind, **given)
        self._small = BackwardPass.of(kind, given, (out.to(given["q"].dtype), lse.float()), of_lse=True, seed=3)
        given = make_inputs(kind, problem.batch, problem.seq_q, problem.seq_k, device=device, seed=2)
        forward = KindOp("checks", kind, NO_DATABASE).operator
        results = forward(*(given[name] for name in "qkv"), *(given.get(name) for name in keywords_of(plan)))
        self._whole = BackwardPass.of(kind, given, results, of_lse=False, seed=4)
        elements = plan.kernel == "backward_elements"
        self.inputs = kernel_inputs(plan, self._whole, self._largest_strip() if elements else None)
        self._small_part = self._of_strip(self._small) if elements else Part(answers(plan, self._small), _all)
        self._parts = list(self._strips())

    def find_fault(self, kernel: Callable[..., Any]) -> str | None:
        """What is wrong with a kernel's answers, or None."""
        small = named_results(self.plan, kernel(**kernel_inputs(self.plan, self._small)))
        if fault := _fault("small sizes", small, self._small_part):
            return fault
        found = named_results(self.plan, kernel(**self.inputs))
        if not all(bool(torch.isfinite(x).all()) for name, x in found.items() if x is not None and name != "log_sum"):
            return "the problem's sizes: values that are not finite"
        for part in self._parts:
            strip = found
            if self.plan.kernel == "backward_elements":
                strip = named_results(self.plan, kernel(**kernel_inputs(self.plan, self._whole)))
            if fault := _fault("the problem's sizes", strip, part):
                return fault
        again = named_results(self.plan, kernel(**self.inputs))
        if not all(_same(x, again[name]) for name, x in found.items()):
            return "the problem's sizes: other bits in a second run"
        return None

    def _strips(self) -> Iterator[Part]:
        plan, whole = self.plan, self._whole
        if plan.kernel == "backward_rows":
            yield Part(answers(plan, whole), _all)
        elif plan.kernel == "backward_elements":
            yield self._of_strip(whole)
        elif plan.kernel == "backward_q":
            seq_q = whole.first().given["q"].shape[2]
            for start in sorted({0, max(0, seq_q // 2 - STRIP // 2), max(0, seq_q - STRIP)}):
                rows = slice(self._aligned(start), min(start + STRIP, seq_q))
                yield Part(answers(plan, whole.cut(rows)), partial(_rows, rows))
        else:
            yield from self._strips_of_keys()

    def _strips_of_keys(self) -> Iterator[Part]:
        plan, whole, group = self.plan, self._whole, self.plan.kind.heads.group
        seq_q, seq_k = (whole.first().given[name].shape[2] for name in "qk")
        prefix = whole.given.get("prefix")
        for start in sorted({0, max(0, seq_k - STRIP)}):
            keys = slice(start, min(start + STRIP, seq_k))
            rows = queries_of_keys(plan, keys, seq_q, seq_k, None if prefix is None else int(prefix[0]))
            rows = slice(self._aligned(rows.start), rows.stop)
            if (rows.stop - rows.start) * seq_k * group <= MOST_PAIRS:
                yield Part(answers(plan, whole.cut(rows, kv_heads=1), keys=keys), partial(_keys, keys, rows, group))

    def _aligned(self, start: int) -> int:
        """The first query of the listed block that one is in."""
        size = 1 if self.plan.kind.blocks is None else self.plan.kind.blocks.size
        return start // size * size

    def _of_strip(self, one: BackwardPass) -> Part:
        """Of the last elements."""
        strip = last_strip(one)
        rows = slice(strip.first_query, strip.first_query + strip.queries)
        return Part(answers(self.plan, one.cut(rows)), _all)

    def _largest_strip(self) -> Strip:
        """The first of those that a call takes at once."""
        return next(strips(Positions(self._whole.call(self.plan)), TILE, self.plan.learned[0].along))


def _same(x: torch.Tensor | None, y: torch.Tensor | None) -> bool:
    return x is None or (y is not None and torch.equal(x, y))


def _all(name: str, x: torch.Tensor) -> torch.Tensor:
    return x


def _rows(rows: slice, name: str, x: torch.Tensor) -> torch.Tensor:
    return x[:1, :, rows]


def _keys(keys: slice, rows: slice, group: int, name: str, x: torch.Tensor) -> torch.Tensor:
    """Of the first KV head, or of the query heads that share it; of dq the queries that see the keys."""
    return x[:1, : 1 if name in ("k", "v") else group, rows if name == "q" else keys]


def _fault(where: str, found: dict[str, torch.Tensor | None], part: Part) -> str | None:
    for name, share in part.right.items():
        result = found[name]
        far = 0.0 if result is None else share(part.of(name, result))
        if not far <= 1.0:
            return f"{where}: {name} is off by {far:.2g} times what rounding explains"
    return None

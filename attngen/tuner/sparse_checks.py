"""Whether a candidate of a sparse kernel computes the right thing: its problem's inputs, the reference's answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from attngen import reference
from attngen.inputs_sparse import (
    make_block_select,
    make_blocks,
    make_gated,
    make_listed,
    make_quantised_index,
    make_scores,
)
from attngen.plan.block_select import BlockSelectPlan
from attngen.plan.gated import GatedPlan
from attngen.plan.gathered import GatheredPlan
from attngen.plan.indexer import IndexerPlan
from attngen.plan.routed import RoutedPlan
from attngen.plan.select import SelectPlan
from attngen.problem import Problem
from attngen.tuner.checks import LSE_TOLERANCE, STRIP, TOLERANCE
from attngen.verify.answers import exact_gated, exact_logits, exact_selection
from attngen.verify.block_lists import block_scores, list_fault

CHECK_SIZES = (2, 37, 459)  # a batch, queries and keys: ragged, several tiles of any size
INDEX_DIFFERENCE = 5e-6  # 1 - cosine-like similarity, as DeepGEMM measures it, of the same quantised numbers


@dataclass
class Strips:
    """Inputs at the problem's own sizes and at small ragged ones, and the rows of each that are compared."""

    plan: Any
    small: dict[str, Any]
    inputs: dict[str, Any]

    def find_fault(self, kernel: Callable[..., Any]) -> str | None:
        """What is wrong with a kernel's answers, or None."""
        for where, inputs in (("small sizes", self.small), ("the problem's sizes", self.inputs)):
            found = kernel(**inputs)
            for rows in self.rows(inputs):
                if fault := self.compare(found, inputs, rows):
                    return f"{where}: {fault}"
        return None

    def rows(self, inputs: dict[str, Any]) -> Iterable[slice]:
        """A few neighbouring queries at the start, in the middle and at the end."""
        count = self.queries(inputs)
        starts = sorted({0, max(0, count // 2 - STRIP // 2), max(0, count - STRIP)})
        return [slice(start, min(start + STRIP, count)) for start in starts]

    def queries(self, inputs: dict[str, Any]) -> int:
        return inputs["q"].shape[2]

    def compare(self, found: Any, inputs: dict[str, Any], rows: slice) -> str | None:
        raise NotImplementedError


class IndexerChecks(Strips):
    """Logits within a query's keys, against float64."""

    def __init__(self, plan: IndexerPlan, problem: Problem, device: str = "cuda") -> None:
        sizes = (problem.batch, problem.seq_q, problem.seq_k)
        made = (make_quantised_index(plan, *s, device=device, seed=n) for n, s in enumerate((CHECK_SIZES, sizes)))
        super().__init__(plan, *made)

    def queries(self, inputs: dict[str, Any]) -> int:
        return inputs["q"].shape[1]

    def compare(self, found: Any, inputs: dict[str, Any], rows: slice) -> str | None:
        right, seen = exact_logits(inputs, 0, rows)
        x, y = found[0, rows, : right.shape[1]][seen].double(), right[seen]
        if not bool(torch.isfinite(x).all()):
            return "logits are not finite"
        difference = float(1 - 2 * (x * y).sum() / (x * x + y * y).sum().clamp_min(1e-30)) if x.numel() else 0.0
        allowed = INDEX_DIFFERENCE if self.plan.logits == "float32" else 2.0**-16
        return None if difference <= allowed else f"logits differ by {difference:.2e}, {allowed:.2e} is allowed"


class SelectChecks(Strips):
    """Selected keys, against a stable sort: all of them equal."""

    def __init__(self, plan: SelectPlan, problem: Problem, device: str = "cuda") -> None:
        rows = problem.batch * problem.seq_q
        small = make_scores(plan, CHECK_SIZES[1], CHECK_SIZES[2] + plan.top_k, device=device, seed=1)
        super().__init__(plan, small, make_scores(plan, rows, problem.seq_k, device=device, seed=2))

    def queries(self, inputs: dict[str, Any]) -> int:
        return inputs["logits"].shape[0]

    def compare(self, found: Any, inputs: dict[str, Any], rows: slice) -> str | None:
        wrong = int((found[rows] != exact_selection(self.plan, inputs, rows)).any(1).sum())
        return f"{wrong} of {rows.stop - rows.start} rows differ from a stable sort" if wrong else None


class BlockSelectChecks(Strips):
    """Lists of blocks, against float64: the same but for ties within what sums in float32 round, and repeatable."""

    def __init__(self, plan: BlockSelectPlan, problem: Problem, device: str = "cuda") -> None:
        sizes = (problem.batch, problem.seq_q, problem.seq_k)
        made = (make_block_select(plan, *s, device=device, seed=n) for n, s in enumerate((CHECK_SIZES, sizes)))
        super().__init__(plan, *made)
        self.seq_k = problem.seq_k

    def find_fault(self, kernel: Callable[..., Any]) -> str | None:
        fault = super().find_fault(kernel)
        if fault is None and not torch.equal(kernel(**self.inputs), kernel(**self.inputs)):
            return "the problem's sizes: a second call gives other lists"
        return fault

    def compare(self, found: Any, inputs: dict[str, Any], rows: slice) -> str | None:
        seq_k = self.seq_k if inputs is self.inputs else CHECK_SIZES[2]
        offset = seq_k - inputs["q"].shape[2] + rows.start
        blocks = -(-seq_k // self.plan.blocks.size)
        scores, error = block_scores(self.plan, inputs["q"][:1, :, rows], inputs["keys"][:1], blocks, offset)
        begin, end = (inputs[name][0, rows].repeat(scores.shape[0]) for name in ("block_first", "block_end"))
        return list_fault(self.plan, scores.flatten(0, 1), error.flatten(0, 1), begin, end, found[0, :, rows])


class ListChecks(Strips):
    """Attention over lists, against float64."""

    def indices(self, inputs: dict[str, Any], rows: slice) -> torch.Tensor:
        """The keys that some queries of the first sequence may see."""
        raise NotImplementedError

    def compare(self, found: Any, inputs: dict[str, Any], rows: slice) -> str | None:
        kind = self.plan.kind
        out, lse = found
        q, k, v = inputs["q"][:1, :, rows], inputs["k"][:1], inputs["v"]
        offset = k.shape[2] - inputs["q"].shape[2] + rows.start
        placed: dict[str, Any] = {"offsets": torch.tensor([offset], dtype=torch.int32, device=q.device)}
        if kind.sink:
            placed["sink"] = inputs["sink"]
        placed["indices"] = self.indices(inputs, rows)
        right, right_lse = reference.attention(kind, q, k, None if v is None else v[:1], **placed)
        if not bool(torch.isfinite(out).all()):
            return "the output has values that are not finite"
        error = float((out[:1, :, rows].double() - right).norm() / right.norm().clamp_min(1e-30))
        if not error <= TOLERANCE[kind.dtype]:
            return f"relative L2 error {error:.2e}, {TOLERANCE[kind.dtype]:.2e} is allowed"
        off = (lse[:1, :, rows].double() - right_lse).masked_fill(torch.isneginf(right_lse), 0.0).abs().max()
        return None if float(off) <= LSE_TOLERANCE else f"lse is off by {float(off):.2e}"


class GatheredChecks(ListChecks):
    """Of lists of keys, or of blocks."""

    def __init__(self, plan: GatheredPlan, problem: Problem, device: str = "cuda") -> None:
        sizes = (problem.batch, problem.seq_q, problem.seq_k)
        made = (make_listed(plan.kind, *s, device=device, seed=n) for n, s in enumerate((CHECK_SIZES, sizes)))
        super().__init__(plan, *made)

    def indices(self, inputs: dict[str, Any], rows: slice) -> torch.Tensor:
        return reference.keys_of_blocks(inputs["indices"][:1, ..., rows, :], self.plan.block)


class RoutedChecks(ListChecks):
    """Of lists of blocks; the small sizes have a few blocks more than a list, and a part of one."""

    def __init__(self, plan: RoutedPlan, problem: Problem, device: str = "cuda") -> None:
        batch, seq_q, seq_k = CHECK_SIZES
        small = (batch, seq_q, plan.select.size * (plan.select.top_k + 2) + seq_k % plan.select.size)
        sizes = (problem.batch, problem.seq_q, problem.seq_k)
        made = (make_blocks(plan.kind, *s, device=device, seed=n) for n, s in enumerate((small, sizes)))
        super().__init__(plan, *made)

    def indices(self, inputs: dict[str, Any], rows: slice) -> torch.Tensor:
        return reference.keys_of_blocks(inputs["blocks"][:1, :, rows], self.plan.select.size)


class GatedChecks:
    """Sums of branches, against float64."""

    def __init__(self, plan: GatedPlan, problem: Problem, device: str = "cuda") -> None:
        sizes = (CHECK_SIZES[:2], (problem.batch, problem.seq_q))
        self.small, self.inputs = (make_gated(plan.kind, *s, device=device, seed=n) for n, s in enumerate(sizes))

    def find_fault(self, kernel: Callable[..., Any]) -> str | None:
        for where, inputs in (("small sizes", self.small), ("the problem's sizes", self.inputs)):
            found = kernel(**inputs)
            rows = [slice(0, STRIP), slice(max(found.shape[2] - STRIP, 0), None)]
            for part in rows:
                cut = {
                    "results": [result[:, :, part] for result in inputs["results"]],
                    "gates": inputs["gates"][:, :, part],
                }
                right, allowed = exact_gated(cut)
                if not bool(((found[:, :, part].double() - right).abs() <= allowed).all()):
                    return f"{where}: a sum is off by more than rounding explains"
        return None


CHECKS: dict[str, Callable[..., Any]] = {
    "block_select": BlockSelectChecks,
    "indexer": IndexerChecks,
    "select": SelectChecks,
    "gated": GatedChecks,
    "gathered": GatheredChecks,
    "routed": RoutedChecks,
}

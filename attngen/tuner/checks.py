"""Whether a candidate computes the right thing, before it is timed: answers that the reference gave once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from attngen import reference
from attngen.inputs import make_inputs
from attngen.problem import Problem
from attngen.spec.model import Kind
from attngen.verify.strips import cut_queries, first_sequence

CHECK_BATCH, CHECK_SEQ_Q, CHECK_SEQ_K = 2, 331, 459  # ragged, several tiles of any size each way
CHECK_KV_HEADS = 2
STRIP = 16  # queries of the real problem that are compared, at its start, middle and end

# Relative L2 error allowed: four times what rounding the result costs; float32 adds what exp2 and sums lose. In FP8 the
# weights' 3 bits of mantissa weigh most: 2.7% for values that go their own ways, as these do; half again is allowed.
TOLERANCE = {"bfloat16": 4 * 2.0**-9, "float16": 4 * 2.0**-11, "float32": 2e-5, "float8_e4m3": 0.04}
LSE_TOLERANCE = 1e-3  # absolute, and 1e-5 of its size: lse never passes through 16 bits
FLOAT8_LSE_TOLERANCE = 4e-3  # scores are sums that Hopper keeps to 2^-13 of their largest part

Kernel = Callable[..., tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Answer:
    """What the reference says of some queries of one sequence or of whole small ones."""

    out: torch.Tensor
    lse: torch.Tensor
    rows: slice
    batches: slice


class WrongAnswer(Exception):
    """A kernel does not compute what it should."""


class Checks:
    """Inputs at the problem's own sizes and at small ragged ones, with the reference's answers."""

    def __init__(self, kind: Kind, problem: Problem, device: str = "cuda") -> None:
        self.kind = kind
        kv = min(kind.heads.kv, CHECK_KV_HEADS)
        heads = (kv * kind.heads.group, kv)
        self.small = make_inputs(kind, CHECK_BATCH, CHECK_SEQ_Q, CHECK_SEQ_K, device=device, seed=1, heads=heads)
        self.inputs = make_inputs(kind, problem.batch, problem.seq_q, problem.seq_k, device=device, seed=2)
        everything = slice(None)
        self.small_answer = Answer(*reference.attention(kind, **self.small), everything, everything)
        if kind.documents:
            self.answers = [self._document(n) for n in range(len(self.inputs["cu_seqlens_q"]) - 1)]
        else:
            starts = sorted({0, max(0, problem.seq_q // 2 - STRIP // 2), max(0, problem.seq_q - STRIP)})
            self.answers = [self._strip(problem, start) for start in starts]

    def find_fault(self, kernel: Kernel) -> str | None:
        """What is wrong with a kernel's answers, or None."""
        fault = self._compare("small sizes", kernel(**self.small), [self.small_answer])
        return fault or self._compare("the problem's sizes", kernel(**self.inputs), self.answers)

    def _strip(self, problem: Problem, start: int) -> Answer:
        """The reference for a few neighbouring queries of the first sequence, from one that begins a listed block."""
        size = 1 if self.kind.blocks is None else self.kind.blocks.size
        rows = slice(start // size * size, min(start + STRIP, problem.seq_q))
        inputs = cut_queries(self.kind, first_sequence(self.inputs), rows)
        out, lse = reference.attention(self.kind, **inputs)
        return Answer(out, lse, rows, slice(0, 1))

    def _document(self, number: int) -> Answer:
        """The reference for the last queries of a packed document."""
        first, end = self.inputs["cu_seqlens_q"][number : number + 2].tolist()
        first_key, end_key = self.inputs["cu_seqlens_k"][number : number + 2].tolist()
        rows, keys = slice(max(first, end - STRIP), end), slice(first_key, end_key)
        inputs = self.inputs | {"q": self.inputs["q"][:, :, rows]}
        inputs |= {name: self.inputs[name][:, :, keys] for name in ("k", "v")}
        whole = replace(self.kind, documents=False)
        del inputs["cu_seqlens_q"], inputs["cu_seqlens_k"]
        if "prefix" in inputs:
            inputs["prefix"] = inputs["prefix"][number : number + 1]
        return Answer(*reference.attention(whole, **inputs), rows, slice(0, 1))

    def _compare(self, where: str, found: tuple[torch.Tensor, torch.Tensor], answers: list[Answer]) -> str | None:
        out, lse = found
        if not bool(torch.isfinite(out).all()):
            return f"{where}: the output has values that are not finite"
        if bool(torch.isnan(lse).any()):
            return f"{where}: lse has NaN"
        for answer in answers:
            part = out[answer.batches, :, answer.rows].double()
            error = float((part - answer.out).norm() / answer.out.norm().clamp_min(1e-30))
            allowed = TOLERANCE[self.kind.dtype]
            if not error <= allowed:
                return f"{where}: relative L2 error {error:.2e}, {allowed:.2e} is allowed"
            tolerance = FLOAT8_LSE_TOLERANCE if self.kind.quantised else LSE_TOLERANCE
            fault = _lse_fault(lse[answer.batches, :, answer.rows].double(), answer.lse, tolerance)
            if fault:
                return f"{where}: {fault}"
        return None


def _lse_fault(found: torch.Tensor, right: torch.Tensor, tolerance: float) -> str | None:
    empty = torch.isneginf(right)
    if not bool((torch.isneginf(found) == empty).all()):
        return "lse is -inf in other rows than the reference's"
    off = (found - right).masked_fill(empty, 0.0).abs() - 1e-5 * right.masked_fill(empty, 0.0).abs()
    worst = float(off.max()) if off.numel() else 0.0
    return None if worst <= tolerance else f"lse is off by {worst:.2e}"

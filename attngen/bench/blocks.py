"""Our call of a kind that selects blocks, or has branches that do: a whole prefill, selection and all."""

from __future__ import annotations

from typing import Any

import torch

from attngen.bench.peers import Call
from attngen.bench.sparse_cases import SparseCase
from attngen.database import Database
from attngen.op.attention import make_op
from attngen.op.choose import Chooser, Chosen, target_here
from attngen.op.kernels import launcher_of
from attngen.plan import Plan
from attngen.plan.kernels import plans_of
from attngen.plan.work import keys_of
from attngen.problem import Problem
from attngen.tuner.checks import WrongAnswer
from attngen.tuner.kernel import checks_of

CHECKED_QUERIES = 4096  # at the end of the keys: answers are compared in float64


def block_call(case: SparseCase, heads: dict[str, torch.Tensor], db: Database | None) -> Call:
    """The call, once each of its kernels is right: a wrong one has no time."""
    for plan in plans_of(case.kind, target_here(), case.seq_k):
        if torch.cuda.is_available():
            problem = _problem(plan, case, min(case.seq_q, CHECKED_QUERIES))
            chosen = Chooser(plan, db).at(_problem(plan, case, case.seq_q))
            if fault := checks_of(plan, problem).find_fault(launcher_of(plan, chosen.config)):
                raise WrongAnswer(f"{plan.kind.name}, {plan.kernel}: {fault}")
    op: Any = make_op(case.spec, case.kind, db)
    gates = {}
    if case.kind.branches:
        shape = (*heads["q"].shape[:3], len(case.kind.branches))
        gates["gates"] = torch.full(shape, 0.5, dtype=heads["q"].dtype, device=heads["q"].device)
    return lambda: op(**heads, **gates)


def block_choice(case: SparseCase, db: Database | None) -> Chosen:
    """The config of the kernel that attends to lists of blocks, and where it comes from."""
    listed = ("routed", "gathered")
    plan = next(plan for plan in plans_of(case.kind, target_here(), case.seq_k) if plan.kernel in listed)
    return Chooser(plan, db).at(_problem(plan, case, case.seq_q))


def _problem(plan: Plan, case: SparseCase, seq_q: int) -> Problem:
    return Problem(plan.kernel, plan.kind.digest(), case.batch, seq_q, keys_of(plan.kind, case.seq_k))

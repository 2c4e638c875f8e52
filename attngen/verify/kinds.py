"""Verification of a spec's kinds: every kernel and case, the config in use and every other structure of the code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from attngen.config import Config
from attngen.database import Database
from attngen.op.choose import Chooser
from attngen.op.kernels import launcher_of
from attngen.plan import Plan
from attngen.plan.boxes import is_gluon
from attngen.plan.indexer import IndexerPlan
from attngen.plan.kernels import backward_plans_for, launched_plans
from attngen.plan.space import feasible_anywhere
from attngen.problem import Problem
from attngen.report.configs import brief
from attngen.spec.model import Kind
from attngen.target import Target
from attngen.verify.cases import Case, cases_of, shortened
from attngen.verify.comparisons import Comparison, comparison
from attngen.verify.finding import Finding, failed
from attngen.verify.variants import variants

MakeKernel = Callable[[Any, Config], Callable[..., Any]]


def verify_kinds(
    kinds: Iterable[Kind],
    target: Target,
    *,
    db: Database | str | None = None,
    seqs: tuple[int, ...] = (),
    interpret: bool = False,
    make_kernel: MakeKernel = launcher_of,
) -> Iterator[Finding]:
    """A finding for each kind, kernel, case and config, as they are made; the backward pass after the forward one.

    On the GPU at the kind's own dtype and heads; with ``interpret``, on the CPU in float16 or FP8, with windows and
    lists cut short and few heads, in a process that was started with TRITON_INTERPRET=1. NotGeneratedError before
    anything else for a kind that no kernel is made of yet.
    """
    kernels = [(kind, _plans(kind, target, interpret)) for kind in kinds]
    for kind, plans in kernels:
        smaller = _plans(shortened(kind), target, interpret) if interpret else plans
        for plan, small in zip(plans, smaller, strict=True):
            if interpret and isinstance(small, IndexerPlan) and small.dtype == "bfloat16":
                small = replace(small, dtype="float16")  # which the interpreter multiplies right
            in_use = _in_use(plan, target, db, seqs, interpret)
            configs = variants(small, target, in_use, interpreted=interpret)
            for case in cases_of(plan, seqs, interpret):
                compared = comparison(small, case, interpret)
                for config in configs:
                    yield _verify_config(small, case, config, compared, make_kernel)


def _plans(kind: Kind, target: Target, interpret: bool) -> tuple[Plan, ...]:
    """Of a kind's kernels those that can run: the interpreter has none of Gluon."""
    plans = (*launched_plans(kind, target), *backward_plans_for(kind, target))
    return plans if not interpret else tuple(plan for plan in plans if _in_triton(plan, target))


def _in_triton(plan: Plan, target: Target) -> bool:
    return any(not is_gluon(config) for config in feasible_anywhere(plan, target))


def _in_use(plan: Plan, target: Target, db: Database | str | None, seqs: tuple[int, ...], interpret: bool) -> Config:
    """What a call of the usual sizes would run, were there only what can run here."""
    seq = max(seqs, default=4096)
    problem = Problem(plan.kernel, plan.kind.digest(), 1, seq, seq)
    return Chooser(plan, db).look_up(problem.bucket(), target, lambda c: not (interpret and is_gluon(c))).config


def _verify_config(plan: Plan, case: Case, config: Config, compared: Comparison, make_kernel: MakeKernel) -> Finding:
    base = Finding(plan.kind.name, str(case), brief(config), plan.kernel)
    try:
        return compared.judge(base, make_kernel(plan, config)(**compared.inputs))
    except Exception as error:  # whatever a compiler or a driver says is a finding
        if type(error).__name__ == "OutOfResources":
            return replace(base, status="skipped", fault="needs more than this GPU has")
        return failed(base, f"{type(error).__name__}: {error}")

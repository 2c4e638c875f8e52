"""What the database knows of a spec on one GPU: for each kind and size the config to run, and how fast it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from attngen.config import Config
from attngen.database import Database, Trial, current_versions
from attngen.database.ranking import best_first, provenance
from attngen.database.shipped import shipped_trials
from attngen.errors import NotGeneratedError
from attngen.plan import ForwardPlan, plan_forward
from attngen.plan.backward import backward_plans
from attngen.plan.kernels import attended_whole
from attngen.problem import Problem
from attngen.report.configs import titled
from attngen.report.work import Work, kernel_work_of, work_of
from attngen.source import template_digest
from attngen.spec.model import Kind, Spec
from attngen.target import TARGETS, Target, get_target


@dataclass(frozen=True)
class Tuning:
    """The best that is known of one kind at one size. Rates need the spec, shares also the GPU's limits."""

    spec: str
    kind: str
    best: Trial
    trials: int
    provenance: str
    tflops: float | None = None
    gbps: float | None = None
    share: float | None = None  # of the roofline

    @property
    def problem(self) -> Problem:
        return self.best.problem

    @property
    def config(self) -> Config:
        return self.best.config

    @property
    def title(self) -> str:
        return titled(self.kind, self.problem.kernel)

    @property
    def origin(self) -> str:
        """``measured, 57 trials``; ``cost model``; and what else its provenance says beside time and place."""
        _, _, rest = self.provenance.partition(", this problem")
        trials = f", {self.trials} trials" if self.trials > 1 else ""
        return f"{'measured' if self.best.source == 'measured' else 'cost model'}{trials}{rest}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for programs."""
        return {
            "spec": self.spec,
            "kind": self.kind,
            "kernel": self.problem.kernel,
            "digest": self.problem.digest,
            "batch": self.problem.batch,
            "seq_q": self.problem.seq_q,
            "seq_k": self.problem.seq_k,
            "target": self.best.target,
            "config": self.config.as_dict(),
            "ms": self.best.median_ms,
            "spread_ms": self.best.spread_ms,
            "source": self.best.source,
            "provenance": self.provenance,
            "tflops": self.tflops,
            "gbps": self.gbps,
            "roofline_share": self.share,
            "trials": self.trials,
            "device": self.best.device,
            "created": self.best.created.isoformat(),
        }


def tunings(db: Database, target: Target, spec: Spec | None = None) -> list[Tuning]:
    """One row for each kind and size that was tried on ``target``, kinds in the spec's order, short lengths first."""
    kinds = [] if spec is None else _kinds(spec)
    plans, order = _plans(kinds), [kind.digest() for kind in kinds]
    found = db.trials(target=target.name, digests=order if spec is not None else None, shipped=True)
    groups: dict[Problem, list[Trial]] = {}
    for trial in found:
        groups.setdefault(trial.problem, []).append(trial)
    rows = [_row(spec, target, trials, plans.get(problem.digest)) for problem, trials in groups.items()]

    def place(row: Tuning) -> tuple:
        p = row.problem
        known = order.index(p.digest) if p.digest in order else len(order)
        return row.spec, known, row.kind, p.kernel, p.seq_k, p.seq_q, p.batch

    return sorted((row for row in rows if row is not None), key=place)


def one_or_two(rows: Sequence[Tuning]) -> list[tuple[Tuning, float]]:
    """Each row of a kernel that makes dq, dk and dv at once, with what two kernels take, where all were measured: calls
    run the faster."""
    measured = {row.problem: row.best.median_ms for row in rows if row.best.source == "measured"}
    pairs = []
    for row in rows:
        of_two = [measured.get(replace(row.problem, kernel=kernel)) for kernel in ("backward_kv", "backward_q")]
        times = [ms for ms in of_two if ms is not None]
        if row.problem.kernel == "backward_fused" and row.problem in measured and len(times) == len(of_two):
            pairs.append((row, sum(times)))
    return pairs


def named_target(db: Database, name: str) -> Target:
    """The target called ``name``, also when only the database knows it; its limits are unknown then."""
    if name not in TARGETS and name in db.targets():
        return replace(TARGETS["h100"], name=name)
    return get_target(name)


def _kinds(spec: Spec) -> list[Kind]:
    """A spec's kinds after their branches, each that selects followed by what it is where there are few keys."""
    ones = [one for kind in spec.kinds for one in (*kind.branches, kind)]
    pairs = [(one, None if one.select is None else attended_whole(one)) for one in ones]
    return [one for pair in pairs for one in pair if one is not None]


def _plans(kinds: Sequence[Kind]) -> dict[str, ForwardPlan]:
    """The plans of kinds by digest; those that have a forward kernel."""
    plans = {}
    for kind in kinds:
        try:
            plans[kind.digest()] = plan_forward(kind)
        except NotGeneratedError:
            continue
    return plans


def _work(plan: ForwardPlan, problem: Problem, target: Target) -> Work | None:
    """Of the forward kernel, or of one of the backward pass; of others, and of a strip of single elements, nothing is
    counted."""
    sizes = (problem.batch, problem.seq_q, problem.seq_k, target)
    if problem.kernel == "forward":
        return work_of(plan, *sizes)
    kernels = {one.kernel: one for one in backward_plans(plan.kind) if one.kernel != "backward_elements"}
    return kernel_work_of(kernels[problem.kernel], *sizes) if problem.kernel in kernels else None


def _row(spec: Spec | None, target: Target, trials: Sequence[Trial], plan: ForwardPlan | None) -> Tuning | None:
    """The row of one problem's trials; None when nothing that was tried worked."""
    triton = current_versions().triton
    template = partial(template_digest, trials[0].problem.kernel)
    best = next(iter(best_first(trials, template, triton)), None)
    if best is None or best.median_ms is None:
        return None
    problem = best.problem
    shipped = any(best is trial for trial in shipped_trials(target.name))
    words = provenance(best, problem, target, shipped=shipped, template=template, triton=triton)
    if plan is None or spec is None:
        return Tuning(best.spec, best.kind, best, len(trials), words)
    work = _work(plan, problem, target)
    if work is None:
        return Tuning(spec.name, plan.kind.name, best, len(trials), words)
    return Tuning(
        spec.name,
        plan.kind.name,
        best,
        len(trials),
        words,
        tflops=work.tflops(best.median_ms),
        gbps=work.gbps(best.median_ms),
        share=work.share(best.median_ms) if target.name in TARGETS or target.figures == "estimated" else None,
    )

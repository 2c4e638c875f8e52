"""Verification of a spec's kinds: every case, the config in use and every other structure of the code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch

from attngen import reference
from attngen.config import Config
from attngen.database import Database
from attngen.op.choose import Chooser
from attngen.op.launch import Launcher
from attngen.plan import ForwardPlan, plan_forward
from attngen.plan.boxes import is_gluon
from attngen.problem import Problem
from attngen.report.configs import brief
from attngen.spec.model import Kind
from attngen.target import Target
from attngen.verify.baseline import same_dtype
from attngen.verify.bounds import element_bound, lse_bound
from attngen.verify.cases import INTERPRETED_KV_HEADS, Case, gpu_cases, interpreted_cases, shortened
from attngen.verify.finding import Finding, failed
from attngen.verify.judge import Answer, judge, l2_error
from attngen.verify.variants import variants

ALLOWED = 1.1  # times the error of plain PyTorch in the same dtype
# Relative L2 error that is always allowed: where PyTorch happens to be exact, and float32's fast exponentials.
LEAST_ALLOWED = {"float16": 2.0**-13, "bfloat16": 2.0**-10, "float32": 2.0**-20, "float8_e4m3": 2.0**-10}

Kernel = Callable[..., tuple[torch.Tensor, torch.Tensor]]
MakeKernel = Callable[[ForwardPlan, Config], Kernel]


def verify_kinds(
    kinds: Iterable[Kind],
    target: Target,
    *,
    db: Database | str | None = None,
    seqs: tuple[int, ...] = (),
    interpret: bool = False,
    make_kernel: MakeKernel = Launcher,
) -> Iterator[Finding]:
    """A finding for each kind, case and config, as they are made.

    On the GPU at the kind's own dtype and heads; with ``interpret``, on the CPU in float16 or FP8, with windows cut
    short and few heads, in a process that was started with TRITON_INTERPRET=1. NotGeneratedError before anything else
    for a kind that no kernel is made of yet.
    """
    plans = [plan_forward(kind) for kind in kinds]
    for plan in plans:
        in_use = _in_use(plan, target, db, seqs, interpret)
        kind = plan.kind
        if interpret:
            plan = plan_forward(shortened(kind))
        configs = variants(plan, target, in_use, interpreted=interpret)
        for case in interpreted_cases(seqs) if interpret else gpu_cases(kind, seqs):
            yield from _verify_case(plan, case, configs, interpret, make_kernel)


def _in_use(
    plan: ForwardPlan, target: Target, db: Database | str | None, seqs: tuple[int, ...], interpret: bool
) -> Config:
    """What a call of the usual sizes would run, were there only what can run here."""
    seq = max(seqs, default=4096)
    problem = Problem(plan.kernel, plan.kind.digest(), 1, seq, seq)
    return Chooser(plan, db).look_up(problem.bucket(), target, lambda c: not (interpret and is_gluon(c))).config


def _verify_case(
    plan: ForwardPlan, case: Case, configs: list[Config], interpret: bool, make_kernel: MakeKernel
) -> Iterator[Finding]:
    kind = plan.kind
    kv = min(kind.heads.kv, INTERPRETED_KV_HEADS)
    heads = (kv * kind.heads.group, kv) if interpret else None
    inputs = case.inputs(kind, "cpu" if interpret else "cuda", heads)
    answer = _answer(kind, inputs, interpret)
    for config in configs:
        yield _verify_config(plan, case, config, inputs, answer, make_kernel)


def _answer(kind: Kind, inputs: dict[str, Any], interpret: bool) -> Answer:
    """What is right, and how much error is allowed: by PyTorch's own, in the interpreter by rounding alone."""
    out, lse = reference.attention(kind, **inputs)
    lse_allowed = lse_bound(kind, inputs, lse, interpreted=interpret)
    if interpret:
        return Answer(out, lse, lse_allowed, element_allowed=element_bound(kind, inputs, out, lse_allowed))
    plain = l2_error(same_dtype(kind, inputs), out)
    return Answer(out, lse, lse_allowed, l2_allowed=max(ALLOWED * plain, LEAST_ALLOWED[kind.dtype]))


def _verify_config(
    plan: ForwardPlan, case: Case, config: Config, inputs: dict[str, Any], answer: Answer, make_kernel: MakeKernel
) -> Finding:
    try:
        out, lse = make_kernel(plan, config)(**inputs)
        return judge(plan.kind.name, case, config, out, lse, answer)
    except Exception as error:  # whatever a compiler or a driver says is a finding
        found = Finding(plan.kind.name, str(case), brief(config))
        if type(error).__name__ == "OutOfResources":
            return replace(found, status="skipped", fault="needs more than this GPU has")
        return failed(found, f"{type(error).__name__}: {error}")

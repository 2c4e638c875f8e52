"""The measuring: for each case every system's call, checked where it is ours, timed in turns with the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from attngen.bench.cases import BenchCase
from attngen.bench.peers import Call, Peer, Unsupported, left_out, reset
from attngen.bench.results import Row
from attngen.database import Database
from attngen.errors import one_line
from attngen.op import KindOp, Launcher
from attngen.plan import plan_forward
from attngen.problem import Problem
from attngen.report.work import Work, work_of
from attngen.target import Target
from attngen.tuner.bench import Timing
from attngen.tuner.checks import Checks

OURS = "attngen"
MOST_TEXT = 200


class WrongAnswer(Exception):
    """Our kernel does not compute what it should."""


class Timer(Protocol):
    """Times calls in turns; the GPU's is attngen.tuner.timing.Timer."""

    def race(self, calls: Sequence[Call]) -> list[Timing]: ...


@dataclass(frozen=True)
class Bench:
    """What a run measures with."""

    target: Target
    timer: Timer
    device: str = "cuda"
    db: Database | None = None


def measure(bench: Bench, cases: Sequence[BenchCase], peers: Sequence[Peer]) -> Iterator[list[Row]]:
    """The rows of each case, ours first."""
    for case in cases:
        plan = plan_forward(case.kind)
        work = work_of(plan, case.batch, case.seq, case.seq, bench.target)
        with torch.no_grad():
            yield _measure_case(bench, case, peers, work)
        if bench.device == "cuda":
            torch.cuda.empty_cache()


def _measure_case(bench: Bench, case: BenchCase, peers: Sequence[Peer], work: Work) -> list[Row]:
    problem = Problem("forward", case.kind.digest(), case.batch, case.seq, case.seq)
    checks = Checks(case.kind, problem, bench.device)
    reset()
    ready: dict[str, tuple[Call, str]] = {}
    rows: dict[str, Row] = {}
    makers: list[tuple[str, Callable[[], Call], str]] = [(OURS, lambda: _ours(bench, case, checks), "")]
    makers += [(p.name, lambda p=p: p.make(case.kind, checks.inputs), left_out(p, case.kind)) for p in peers]  # type: ignore[misc]
    for name, make, note in makers:
        try:
            call = make()
            call()
            ready[name] = (call, note)
        except Unsupported as reason:
            rows[name] = Row(case.suite, case.name, name, None, note=str(reason))
        except Exception as error:  # a peer's failure is a row, not the end of the run
            rows[name] = Row(
                case.suite, case.name, name, None, note=one_line(f"{type(error).__name__}: {error}")[:MOST_TEXT]
            )
    timings = bench.timer.race([call for call, _ in ready.values()])
    for (name, (_, note)), timing in zip(ready.items(), timings, strict=True):
        rows[name] = _row(case, name, timing, work, note)
    return [rows[name] for name, _, _ in makers]


def _ours(bench: Bench, case: BenchCase, checks: Checks) -> Call:
    """Our call, once its answers are right: a wrong kernel has no time."""
    op, inputs = KindOp(case.spec, case.kind, bench.db), checks.inputs
    if bench.device == "cuda":  # the CPU runs the reference itself
        fault = checks.find_fault(Launcher(op.plan, op.config(inputs["q"], inputs["k"], inputs["v"]).config))
        if fault:
            raise WrongAnswer(fault)
    return lambda: op(**inputs)


def _row(case: BenchCase, name: str, timing: Timing, work: Work, note: str) -> Row:
    ms = timing.median_ms
    return Row(
        case.suite,
        case.name,
        name,
        ms,
        spread=timing.spread_ms,
        tflops=work.tflops(ms),
        gbps=work.gbps(ms),
        roofline=work.share(ms),
        note=note,
    )

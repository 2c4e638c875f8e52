"""The measuring: for each case every system's call, checked where it is ours, timed in turns with the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import torch

from attngen.bench.cases import BenchCase
from attngen.bench.machine import ClockLog
from attngen.bench.peers import Call, Peer, Unsupported, reset
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
    log: ClockLog = field(default_factory=ClockLog)


def measure(bench: Bench, cases: Sequence[BenchCase], peers: Sequence[Peer]) -> Iterator[list[Row]]:
    """The rows of each case, ours first. A case that fails as a whole has rows that say why."""
    for case in cases:
        try:
            with torch.no_grad():
                rows = _measure_case(bench, case, peers)
        except Exception as error:
            rows = [
                Row(case.suite, case.name, name, None, note=_reason(error))
                for name in (OURS, *(peer.name for peer in peers))
            ]
        yield rows
        if bench.device == "cuda":
            with suppress(RuntimeError):  # after a fault of the GPU nothing works, and the rows have said so
                torch.cuda.empty_cache()


def case_work(bench: Bench, case: BenchCase) -> Work:
    """What the case must do at least."""
    return work_of(plan_forward(case.kind), case.batch, case.seq, case.seq, bench.target)


def _measure_case(bench: Bench, case: BenchCase, peers: Sequence[Peer]) -> list[Row]:
    work = case_work(bench, case)
    problem = Problem("forward", case.kind.digest(), case.batch, case.seq, case.seq)
    checks = Checks(case.kind, problem, bench.device)
    op = KindOp(case.spec, case.kind, bench.db)
    makers: dict[str, Callable[[], Call]] = {OURS: partial(_ours, bench, op, checks)}
    makers |= {peer.name: partial(peer.make, case.kind, checks.inputs) for peer in peers}
    reset()
    calls, reasons = prepared(makers)
    rows = {name: Row(case.suite, case.name, name, None, note=reason) for name, reason in reasons.items()}
    start = time.monotonic()
    timings = bench.timer.race(list(calls.values()))
    clock = bench.log.median(start)
    notes = {peer.name: peer.left_out(case.kind) for peer in peers}
    for name, timing in zip(calls, timings, strict=True):
        rows[name] = replace(_row(case, name, timing, work), note=notes.get(name, ""), sm_mhz=clock)
    with suppress(Exception):  # where there is no config, our row says why
        chosen = op.config(*(checks.inputs[name] for name in "qkv"))
        rows[OURS] = replace(rows[OURS], config=chosen.config.as_dict(), provenance=chosen.provenance)
    return [rows[name] for name in makers]


def prepared(makers: Mapping[str, Callable[[], Call]]) -> tuple[dict[str, Call], dict[str, str]]:
    """The calls that work, each called once, and why the others do not: a peer's failure does not end the run."""
    calls: dict[str, Call] = {}
    reasons: dict[str, str] = {}
    for name, make in makers.items():
        try:
            call = make()
            call()
            calls[name] = call
        except Unsupported as reason:
            reasons[name] = str(reason)
        except Exception as error:
            reasons[name] = _reason(error)
    return calls, reasons


def _reason(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")[:MOST_TEXT]


def _ours(bench: Bench, op: KindOp, checks: Checks) -> Call:
    """Our call, once its answers are right: a wrong kernel has no time."""
    inputs = checks.inputs
    if bench.device == "cuda":  # the CPU runs the reference itself
        fault = checks.find_fault(Launcher(op.plan, op.config(inputs["q"], inputs["k"], inputs["v"]).config))
        if fault:
            raise WrongAnswer(fault)
    return lambda: op(**inputs)


def _row(case: BenchCase, name: str, timing: Timing, work: Work) -> Row:
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
        bound=work.bound,
    )

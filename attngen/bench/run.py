"""The measuring: for each case every system's call, checked where it is ours, timed in turns with the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch

from attngen.bench.backward import backward_configs, gradients_call, our_gradients
from attngen.bench.cases import AnyCase, BenchCase
from attngen.bench.machine import ClockLog
from attngen.bench.packed import op_call, packed_inputs, packed_work
from attngen.bench.peers import Call, Peer, Unsupported, reset
from attngen.bench.results import Row
from attngen.bench.sparse import SparseInputs, SparsePeer, our_call, our_choice
from attngen.bench.sparse_cases import BLOCKS, GATHERED, SparseCase
from attngen.database import Database
from attngen.errors import one_line
from attngen.inputs import make_inputs
from attngen.op import Chosen, KindOp, Launcher
from attngen.plan import plan_forward
from attngen.problem import Problem
from attngen.report.sparse import Part, part_work, whole_work
from attngen.report.work import Work, backward_work_of, work_of
from attngen.spec.model import Kind
from attngen.target import Target
from attngen.tuner.bench import Timing
from attngen.tuner.checks import Checks, WrongAnswer

AnyPeer = Peer | SparsePeer
OURS = "attngen"
MOST_TEXT = 200


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


def measure(bench: Bench, cases: Sequence[AnyCase], peers: Sequence[AnyPeer]) -> Iterator[list[Row]]:
    """The rows of each case, ours first. A case that fails as a whole has rows that say why."""
    for case in cases:
        try:
            with torch.no_grad():
                rows = _measure_case(bench, case, peers)
        except Exception as error:
            rows = [
                Row(case.suite, case.name, name, None, note=_reason(error))
                for name in (OURS, *(peer.name for peer in peers if does(peer, case)))
            ]
        yield rows
        if bench.device == "cuda":
            with suppress(RuntimeError):  # after a fault of the GPU nothing works, and the rows have said so
                torch.cuda.empty_cache()


def case_work(bench: Bench, case: AnyCase) -> Work:
    """What the case must do at least."""
    if isinstance(case, SparseCase):
        if case.suite == BLOCKS:
            return whole_work(case.kind, case.batch, case.seq_q, bench.target)
        part: Part = "gathered" if case.suite == GATHERED else "indexer"
        return part_work(case.kind, part, case.batch, case.seq_q, case.seq_k, bench.target)
    if case.lengths:
        return packed_work(case.kind, case.lengths, bench.target, case.backward)
    work = backward_work_of if case.backward else work_of
    return work(plan_forward(case.kind), case.batch, case.seq, case.seq, bench.target)


@dataclass(frozen=True)
class Systems:
    """Ours and the peers on one case: how each call is made, what peers leave out, and which config is ours."""

    makers: dict[str, Callable[[], Call]]
    notes: dict[str, str]
    chosen: Callable[[], tuple[dict[str, Any], str]]  # ours, of several kernels each under its name; and from where


def _forward_systems(bench: Bench, case: BenchCase, peers: Sequence[AnyPeer]) -> Systems:
    problem = Problem("forward", case.kind.digest(), case.batch, case.seq, case.seq)
    checks = Checks(case.kind, problem, bench.device)
    op = KindOp(case.spec, case.kind, bench.db)
    inputs = packed_inputs(case.kind, case.lengths, bench.device) if case.lengths else checks.inputs
    makers: dict[str, Callable[[], Call]] = {OURS: partial(_ours, bench, op, checks, inputs)}
    able = [peer for peer in peers if isinstance(peer, Peer)]
    makers |= {peer.name: partial(_maker(peer, case), case.kind, inputs) for peer in able}
    notes = {peer.name: peer.left_out(case.kind) for peer in able}
    return Systems(makers, notes, lambda: _plain(op.config(*(inputs[name] for name in "qkv"))))


def _maker(peer: Peer, case: BenchCase) -> Callable[[Kind, dict[str, Any]], Call]:
    if not case.lengths:
        return peer.make
    assert peer.packed is not None  # ``does`` says so
    return peer.packed


def _backward_systems(bench: Bench, case: BenchCase, peers: Sequence[AnyPeer]) -> Systems:
    """Peers compute without a sink, of which most make no gradient."""
    if case.lengths:
        inputs = packed_inputs(case.kind, case.lengths, bench.device)
    else:
        inputs = make_inputs(case.kind, case.batch, case.seq, case.seq, device=bench.device, seed=2)
    op = KindOp(case.spec, case.kind, bench.db)
    makers: dict[str, Callable[[], Call]] = {OURS: partial(our_gradients, op, inputs)}
    able = [peer for peer in peers if isinstance(peer, Peer)]
    plain = replace(case.kind, sink=False)
    makers |= {peer.name: partial(gradients_call, partial(_maker(peer, case), plain), inputs) for peer in able}
    notes = {peer.name: "without the sink" if case.kind.sink else "" for peer in able}
    return Systems(makers, notes, partial(backward_configs, op, inputs))


def _plain(chosen: Chosen) -> tuple[dict[str, Any], str]:
    return chosen.config.as_dict(), chosen.provenance


def _sparse_systems(bench: Bench, case: SparseCase, peers: Sequence[AnyPeer]) -> Systems:
    inputs = SparseInputs(case, bench.device)
    makers: dict[str, Callable[[], Call]] = {OURS: partial(our_call, case, inputs, bench.db)}
    able = [peer for peer in peers if isinstance(peer, SparsePeer) and does(peer, case)]
    makers |= {peer.name: partial(peer.make, inputs) for peer in able}
    return Systems(makers, {}, lambda: _plain(our_choice(case, inputs, bench.db)))


def _measure_case(bench: Bench, case: AnyCase, peers: Sequence[AnyPeer]) -> list[Row]:
    work = case_work(bench, case)
    if isinstance(case, SparseCase):
        systems = _sparse_systems(bench, case, peers)
    else:
        of_case = [peer for peer in peers if does(peer, case)]
        systems = (_backward_systems if case.backward else _forward_systems)(bench, case, of_case)
    makers, notes = systems.makers, systems.notes
    reset()
    calls, reasons = prepared(makers)
    rows = {name: Row(case.suite, case.name, name, None, note=reason) for name, reason in reasons.items()}
    start = time.monotonic()
    timings = bench.timer.race(list(calls.values()))
    clock = bench.log.median(start)
    for name, timing in zip(calls, timings, strict=True):
        rows[name] = replace(_row(case, name, timing, work), note=notes.get(name, ""), sm_mhz=clock)
    with suppress(Exception):  # where there is no config, our row says why
        config, provenance = systems.chosen()
        rows[OURS] = replace(rows[OURS], config=config, provenance=provenance)
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


def _ours(bench: Bench, op: KindOp, checks: Checks, inputs: dict[str, Any]) -> Call:
    """Our call, once its answers are right: a wrong kernel has no time."""
    if bench.device == "cuda":  # the CPU runs the reference itself
        fault = checks.find_fault(Launcher(op.plan, op.config(inputs["q"], inputs["k"], inputs["v"]).config))
        if fault:
            raise WrongAnswer(fault)
    return op_call(op, inputs)


def does(peer: AnyPeer, case: AnyCase) -> bool:
    """Whether a system is one for a case's suite."""
    if isinstance(case, SparseCase):
        return isinstance(peer, SparsePeer) and peer.suite == case.suite
    if not isinstance(peer, Peer) or (case.lengths and peer.packed is None):
        return False
    return case.backward or not peer.only_backward


def _row(case: AnyCase, name: str, timing: Timing, work: Work) -> Row:
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

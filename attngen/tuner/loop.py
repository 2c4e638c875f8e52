"""The search itself: one loop that keeps compilers and GPU busy, records every answer, and waits for nothing long."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from typing import cast

from attngen.config import Config
from attngen.database import Database, Status, Trial
from attngen.database.ranking import best_first, matches
from attngen.database.trial import STATUSES, now
from attngen.errors import AttngenError
from attngen.tuner.bench import Compiled, Reply, Timing
from attngen.tuner.result import Progress, Reason, Reporter, TuningResult
from attngen.tuner.search import Search
from attngen.tuner.task import Task
from attngen.tuner.team import Team
from attngen.tuner.workers import Worker, wait_for

MOST_SPILLS = 128  # bytes a thread; a few cost nothing
COMPILED_AHEAD = 4  # candidates that wait for the GPU
SEEDS = 8  # from the database, and as many from the cost model
FINALISTS, FINAL_MARGIN = 6, 1.05  # at most so many, within so much of the best
TICK_SECONDS = 0.5
COMPILER_PATIENCE, MEASURER_PATIENCE = 3.0, 15.0  # seconds past the end; the measurer is needed for the finalists
OPENINGS = 3  # failures in a row to even start working, before giving up
BREAKDOWNS = 8  # crashes and timeouts in a row on the GPU, before giving up


class TuningError(AttngenError):
    """Tuning cannot go on, for a reason that is not one candidate's."""


@dataclass(frozen=True)
class Limits:
    """When to stop, and how long to wait for one answer."""

    trials: int | None = None  # known in the end, those of earlier runs included
    minutes: float | None = None
    compile_seconds: float = 120.0
    measure_seconds: float = 60.0
    prepare_seconds: float = 300.0
    final_seconds: float = 10.0  # kept back from ``minutes`` for the finalists


class Loop:
    """One run over one task."""

    def __init__(
        self, task: Task, db: Database, team: Team, limits: Limits, *, exhaustive: bool, report: Reporter, seed: int
    ) -> None:
        self.task, self.db, self.team, self.limits, self.report = task, db, team, limits, report
        self.exhaustive = exhaustive
        self.search = Search(task.parameters, task.configs, seed, exhaustive=exhaustive)
        self.study = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{os.getpid()}"
        self.started = time.monotonic()
        self.trials: list[Trial] = []  # of this problem, with these templates and Triton, earlier runs included
        self.known = self._resume()
        self.tried = 0
        self.asked = 0
        self.failures: Counter[str] = Counter()
        self.ready: deque[tuple[Config, Compiled]] = deque()
        self.trouble: Counter[str] = Counter()  # in a row, by kind

    def run(self) -> TuningResult:
        self.team.assign(self.task.bench)
        while True:
            if self._time_is_up():
                self.ready.clear()
            self._feed()
            if not self._busy() and not self.ready:
                break
            self._abandon_the_late()
            wait_for(self._busy(), TICK_SECONDS)
            self._collect()
            self._tell_progress("")
        stopped = self._why_stop() or "exhausted"
        finalists = self._finals() if self.task.source == "measured" else ()
        return TuningResult(
            problem=self.task.problem,
            target=self.task.target.name,
            source=self.task.source,
            best=next(iter(best_first(self.trials)), None),
            default=next((t for t in best_first(self.trials) if t.config == self.task.default), None),
            finalists=finalists,
            tried=self.tried,
            known=self.known,
            failures=tuple(sorted(self.failures.items())),
            space=self.search.size,
            stopped=stopped,
            seconds=time.monotonic() - self.started,
            study=self.study,
        )

    # What came before

    def _resume(self) -> int:
        """Take up earlier trials of this very problem; queue what others suggest. How many were taken up."""
        task = self.task
        triton = task.versions.triton
        history = self.db.trials(task.problem, target=task.target.name, source=task.source)
        current = {t.config: t for t in history if matches(t, task.template, triton) == 3}
        for config, trial in current.items():
            self.search.known(config, trial.median_ms if trial.status == "ok" else None)
        self.trials = [t for t in history if matches(t, task.template, triton) == 3]
        self.search.seed([task.default])
        self.search.seed([t.config for t in best_first(history)[:SEEDS]])
        choices = self.db.lookup_all(task.problem, task.target, template=task.template, triton=triton)
        self.search.seed([choice.config for choice in islice(choices, SEEDS)])
        self.search.seed(self._promising())
        return len(current)

    def _promising(self) -> Iterable[Config]:
        """The cost model's favourites, of different tile shapes."""
        ranked = sorted(self.task.configs, key=lambda config: self.task.estimate(config, None))
        shapes: dict[tuple, Config] = {}
        for config in ranked:
            shapes.setdefault(tuple(config.get(name) for name in ("schedule", "BLOCK_M", "BLOCK_N")), config)
        return list(islice(shapes.values(), SEEDS))

    # Stopping

    def _why_stop(self) -> Reason | None:
        if self._time_is_up():
            return "minutes"
        if self.limits.trials is not None and not self.exhaustive and self.known + self.asked >= self.limits.trials:
            return "trials"
        return "exhausted" if self.search.exhausted else None

    def _time_is_up(self, grace: float = 0.0) -> bool:
        if self.limits.minutes is None:
            return False
        seconds = self.limits.minutes * 60
        keep = min(self.limits.final_seconds, 0.2 * seconds) if self.task.source == "measured" else 0.0
        return time.monotonic() - self.started > seconds - keep + grace

    def _abandon_the_late(self) -> None:
        """End what is still under way some time after time was up; it leaves no row."""
        for worker in self._busy():
            patience = MEASURER_PATIENCE if worker is self.team.measurer else COMPILER_PATIENCE
            if self._time_is_up(patience):
                worker.kill()

    # Keeping everyone busy

    def _busy(self) -> list[Worker]:
        return [worker for worker in self.team.workers if worker.busy]

    def _feed(self) -> None:
        compilers = self.team.compilers
        for worker in compilers:
            if worker.busy:
                continue
            if not worker.opened:
                if self._why_stop() is None:
                    worker.request(_Opening(), "healthy", seconds=self.limits.prepare_seconds)
                continue
            under_way = sum(isinstance(w.task, Config) for w in compilers)
            if len(self.ready) + under_way >= len(compilers) + COMPILED_AHEAD or self._why_stop() is not None:
                continue
            config = self.search.ask()
            if config is not None:
                self.asked += 1
                worker.request(config, "compile", config, seconds=self.limits.compile_seconds)
        if self.task.source == "measured":
            self._feed_measurer()

    def _feed_measurer(self) -> None:
        worker = self.team.measurer
        if worker.busy:
            return
        if not worker.opened and (self.ready or self._why_stop() is None):
            worker.request(_Opening(), "prepare", seconds=self.limits.prepare_seconds)
        elif worker.opened and self.ready:
            config, compiled = self.ready.popleft()
            best = self._best_ms()
            worker.request(_Measuring(config, compiled), "measure", config, best, seconds=self.limits.measure_seconds)

    def _collect(self) -> None:
        for worker in self._busy():
            task = worker.task
            reply = worker.answer()
            if reply is None:
                continue
            if isinstance(task, _Opening):
                self._opened(worker, reply)
            elif isinstance(task, _Measuring):
                self._measured(task, reply)
            else:
                self._compiled(task, reply)

    # Answers

    def _opened(self, worker: Worker, reply: Reply) -> None:
        who = "the GPU's worker" if worker is self.team.measurer else "a compiler"
        if reply.status:
            worker.kill()
            self.trouble[who] += 1
            if self.trouble[who] >= OPENINGS:
                raise TuningError(f"{who} cannot start: {reply.message}")
            return
        worker.opened = True
        self.trouble[who] = 0

    def _compiled(self, config: Config, reply: Reply) -> None:
        if reply.status:
            status = _status(reply, "compile_error")
            return self._record(self._trial(config, status, error=f"compiling: {reply.message}"))
        compiled: Compiled = reply.value
        status, why = self._verdict(config, compiled)
        if status != "ok":
            self._record(self._trial(config, status, compiled, error=why))
        elif self.task.source == "model":
            self._record(self._trial(config, "ok", compiled, median_ms=self.task.estimate(config, compiled)))
        else:
            self.ready.append((config, compiled))

    def _verdict(self, config: Config, compiled: Compiled) -> tuple[Status, str]:
        """Whether the compiler's report leaves hope."""
        target = self.task.target
        if compiled.shared > target.shared_per_block:
            return "too_large", f"{compiled.shared} bytes of shared memory; {target.name} has {target.shared_per_block}"
        registers = compiled.registers * int(config.get("num_warps") or 1) * target.warp_size
        if registers > target.registers_per_sm:
            return "too_large", f"{registers} registers; an SM of {target.name} has {target.registers_per_sm}"
        if compiled.spills > MOST_SPILLS:
            return "spilled", f"{compiled.spills} bytes a thread; at most {MOST_SPILLS} are tried"
        return "ok", ""

    def _measured(self, task: _Measuring, reply: Reply) -> None:
        if not reply.status:
            self.trouble["GPU"] = 0
            return self._record(self._timed(task.config, task.compiled, reply.value))
        status = _status(reply, "crashed")
        self._record(self._trial(task.config, status, task.compiled, error=reply.message))
        self.trouble["GPU"] = self.trouble["GPU"] + 1 if status in ("crashed", "timeout") else 0
        if self.trouble["GPU"] >= BREAKDOWNS:
            raise TuningError(f"{BREAKDOWNS} candidates in a row crashed or hung, the last: {reply.message}")

    def _timed(self, config: Config, compiled: Compiled | None, timing: Timing, final: bool = False) -> Trial:
        return self._trial(
            config,
            "ok",
            compiled,
            median_ms=timing.median_ms,
            spread_ms=timing.spread_ms,
            samples=timing.samples,
            final=final,
        )

    def _trial(self, config: Config, status: Status, compiled: Compiled | None = None, **values: object) -> Trial:
        task = self.task
        if compiled is not None:
            values.update(registers=compiled.registers, spills=compiled.spills, shared=compiled.shared)
            values.update(compile_seconds=compiled.seconds)
        return Trial(
            problem=task.problem,
            target=task.target.name,
            config=config,
            status=status,
            source=task.source,
            spec=task.spec,
            kind=task.kind,
            description=task.description,
            device=task.device,
            template=task.template,
            versions=task.versions,
            study=self.study,
            **values,  # type: ignore[arg-type]
        )

    def _record(self, trial: Trial) -> None:
        """On disk first, then to the search: what a kill leaves behind is a prefix of the truth."""
        self.db.record(trial)
        self.trials.append(trial)
        self.search.tell(trial.config, trial.median_ms if trial.status == "ok" else None)
        self.tried += 1
        if trial.status != "ok":
            self.failures[trial.status] += 1

    # Finalists

    def _finals(self) -> tuple[Trial, ...]:
        """Time the best few again, in turns; the winner is the best of these."""
        ranked = best_first(self.trials)
        limit = FINAL_MARGIN * ((ranked[0].median_ms or 0.0) if ranked else 0.0)
        near = [t for n, t in enumerate(ranked[:FINALISTS]) if n < 2 or (t.median_ms or 0.0) <= limit]
        if len(near) < 2 or all(t.final for t in near):
            return tuple(t for t in near if t.final)
        self._tell_progress(f"timing {len(near)} finalists in turns")
        worker, configs = self.team.measurer, [t.config for t in near]
        if not worker.opened and self._ask(worker, _Opening(), "prepare", self.limits.prepare_seconds).status:
            return ()
        worker.opened = True
        reply = self._ask(worker, _Opening(), "race", self.limits.measure_seconds * len(configs), configs)
        if reply.status:
            return ()
        finals = []
        for trial, timing in zip(near, reply.value, strict=True):
            final = trial.replace(
                median_ms=timing.median_ms,
                spread_ms=timing.spread_ms,
                samples=timing.samples,
                final=True,
                study=self.study,
                created=now(),
            )
            self.db.record(final)
            finals.append(final)
        self.trials += finals
        return tuple(sorted(finals, key=lambda t: t.median_ms or 0.0))

    @staticmethod
    def _ask(worker: Worker, task: object, method: str, seconds: float, *arguments: object) -> Reply:
        worker.request(task, method, *arguments, seconds=seconds)
        while (reply := worker.answer()) is None:
            wait_for([worker], TICK_SECONDS)
        return reply

    # Reporting

    def _best_ms(self) -> float | None:
        return min((t.median_ms for t in self.trials if t.status == "ok" and t.median_ms), default=None)

    def _tell_progress(self, doing: str) -> None:
        left = self.search.size - self.known
        if self.limits.trials is not None and not self.exhaustive:
            left = min(left, self.limits.trials - self.known)
        limit = None if self.limits.minutes is None else self.limits.minutes * 60
        best = next(iter(best_first(self.trials)), None)
        elapsed = time.monotonic() - self.started
        failed = sum(self.failures.values())
        self.report(Progress(self.tried, self.known, max(left, 0), failed, best, elapsed, limit, doing))


@dataclass(frozen=True)
class _Opening:
    """A worker's first request for a bench, or one whose answer is waited for on the spot."""


@dataclass(frozen=True)
class _Measuring:
    config: Config
    compiled: Compiled


def _status(reply: Reply, otherwise: Status) -> Status:
    """A row's status for a failed request; a death or an unforeseen error counts as ``otherwise``."""
    known = reply.status in STATUSES and reply.status != "crashed"
    return cast(Status, reply.status) if known else otherwise


def run(
    task: Task,
    db: Database,
    *,
    limits: Limits,
    team: Team | None = None,
    workers: int | None = None,
    exhaustive: bool = False,
    report: Reporter | Callable[[Progress], None] | None = None,
    seed: int = 0,
) -> TuningResult:
    """Search one task and record every trial. Ends its processes unless given a ``team`` to use."""
    own = team is None
    team = team or Team(workers)
    try:
        loop = Loop(task, db, team, limits, exhaustive=exhaustive, report=report or (lambda _: None), seed=seed)
        return loop.run()
    finally:
        if own:
            team.close()

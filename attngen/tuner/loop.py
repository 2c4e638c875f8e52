"""The search itself: one loop that keeps compilers and GPU busy, records every answer, and waits for nothing long."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from attngen.config import Config
from attngen.database import Database, Trial
from attngen.errors import AttngenError
from attngen.tuner.bench import Compiled, Reply
from attngen.tuner.journal import Journal
from attngen.tuner.result import Progress, Reason, Reporter, TuningResult
from attngen.tuner.search import Search
from attngen.tuner.seeds import prepare_search
from attngen.tuner.task import Task
from attngen.tuner.team import Team
from attngen.tuner.verdict import judge, status_of
from attngen.tuner.workers import Worker, wait_for

COMPILED_AHEAD = 4  # candidates that wait for the GPU
FINALISTS, FINAL_MARGIN = 6, 1.15  # at most so many, within so much of the best: a GPU slows down as it warms
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
        self.task, self.team, self.limits, self.report = task, team, limits, report
        self.exhaustive = exhaustive
        self.started = time.monotonic()
        self.db = db
        self.journal = Journal(task, db)
        self.search = Search(task.parameters, task.configs, seed, exhaustive=exhaustive)
        prepare_search(self.search, task, self.journal, db)
        self.asked = 0
        self.ready: deque[tuple[Config, Compiled]] = deque()
        self.trouble: Counter[str] = Counter()  # in a row, by whose it is

    def run(self) -> TuningResult:
        self.team.assign(self.task.bench)
        while True:
            if self._time_is_up():
                self.ready = deque(each for each in self.ready if each[0] == self.task.default)
            self._feed()
            if not self._busy() and not self.ready:
                break
            self._abandon_the_late()
            wait_for(self._busy(), TICK_SECONDS)
            self._collect()
            self._tell_progress("")
        stopped = self._why_stop() or "exhausted"
        finalists = self._finals() if self.task.source == "measured" else ()
        ranked = self.journal.ranked()
        if ranked and self.task.source == "measured":
            self._keep_kernels(ranked[0].config)
        return TuningResult(
            problem=self.task.problem,
            target=self.task.target.name,
            source=self.task.source,
            best=next(iter(ranked), None),
            default=next((t for t in ranked if t.config == self.task.default), None),
            finalists=finalists,
            tried=self.journal.tried,
            known=self.journal.known,
            failures=tuple(sorted(self.journal.failures.items())),
            space=self.search.size,
            stopped=stopped,
            seconds=time.monotonic() - self.started,
            study=self.journal.study,
        )

    # Stopping

    def _why_stop(self) -> Reason | None:
        if self._time_is_up():
            return "minutes"
        wanted = None if self.exhaustive else self.limits.trials
        if wanted is not None and self.journal.known + self.asked >= wanted:
            return "trials"
        return "exhausted" if self.search.exhausted else None

    def _time_is_up(self, grace: float = 0.0) -> bool:
        if self.limits.minutes is None:
            return False
        seconds = self.limits.minutes * 60
        keep = min(self.limits.final_seconds, 0.2 * seconds) if self.task.source == "measured" else 0.0
        return time.monotonic() - self.started > seconds - keep + grace

    def _abandon_the_late(self) -> None:
        """End what is still under way some time after time was up; it leaves no row. The default is waited for: what a
        short run names best must not be worse than what no run would have chosen."""
        for worker in self._busy():
            if _config_of(worker.task) == self.task.default:
                continue
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
            best = self.journal.best_ms()
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
        worker.open()
        self.trouble[who] = 0

    def _compiled(self, config: Config, reply: Reply) -> None:
        if reply.status:
            self._settle(
                self.journal.add(config, status_of(reply, "compile_error"), error=f"compiling: {reply.message}")
            )
            return
        compiled: Compiled = reply.value
        status, why = judge(config, compiled, self.task.target, self.task.problem.kernel)
        if status != "ok":
            self._settle(self.journal.add(config, status, compiled, error=why))
        elif self.task.source == "model":
            self._settle(self.journal.add(config, "ok", compiled, median_ms=self.task.estimate(config, compiled)))
        else:
            self.ready.append((config, compiled))

    def _measured(self, task: _Measuring, reply: Reply) -> None:
        if not reply.status:
            self.trouble["GPU"] = 0
            self._settle(self.journal.add_timing(task.config, task.compiled, reply.value))
            return
        status = status_of(reply, "crashed")
        self._settle(self.journal.add(task.config, status, task.compiled, error=reply.message))
        self.trouble["GPU"] = self.trouble["GPU"] + 1 if status in ("crashed", "timeout") else 0
        if self.trouble["GPU"] >= BREAKDOWNS:
            raise TuningError(f"{BREAKDOWNS} candidates in a row crashed or hung, the last: {reply.message}")

    def _settle(self, trial: Trial) -> None:
        self.search.tell(trial.config, trial.median_ms if trial.status == "ok" else None)

    # Finalists

    def _finals(self) -> tuple[Trial, ...]:
        """Time the best few again, in turns; the winner is the best of these."""
        ranked = sorted(self.journal.ranked(), key=lambda t: t.median_ms or math.inf)
        limit = FINAL_MARGIN * ((ranked[0].median_ms or 0.0) if ranked else 0.0)
        near = [t for n, t in enumerate(ranked[:FINALISTS]) if n < 2 or (t.median_ms or 0.0) <= limit]
        if len(near) < 2 or all(t.final for t in near):
            return tuple(t for t in near if t.final)
        self._tell_progress(f"timing {len(near)} finalists in turns")
        worker, configs = self.team.measurer, [t.config for t in near]
        if not worker.opened and self._ask(worker, _Opening(), "prepare", self.limits.prepare_seconds).status:
            return ()
        worker.open()
        reply = self._ask(worker, _Opening(), "race", self.limits.measure_seconds * len(configs), configs)
        if reply.status:
            return ()
        finals = [self.journal.add_final(t, timing) for t, timing in zip(near, reply.value, strict=True)]
        return tuple(sorted(finals, key=lambda t: t.median_ms or 0.0))

    def _keep_kernels(self, winner: Config) -> None:
        """Keep what is compiled of the winner: its first call elsewhere takes no compiler, unless this fails."""
        worker = self.team.measurer
        if not worker.opened:
            return
        reply = self._ask(worker, _Opening(), "kernels", self.limits.measure_seconds, winner)
        for kernel in () if reply.status else reply.value:
            self.db.keep_kernel(kernel.source, kernel.key, kernel.files)

    @staticmethod
    def _ask(worker: Worker, task: object, method: str, seconds: float, *arguments: object) -> Reply:
        worker.request(task, method, *arguments, seconds=seconds)
        while (reply := worker.answer()) is None:
            wait_for([worker], TICK_SECONDS)
        return reply

    # Reporting

    def _tell_progress(self, doing: str) -> None:
        journal, minutes = self.journal, self.limits.minutes
        total = self.search.size - journal.known
        if self.limits.trials is not None and not self.exhaustive:
            total = min(total, self.limits.trials - journal.known)
        self.report(
            Progress(
                tried=journal.tried,
                known=journal.known,
                total=max(total, 0),
                failed=sum(journal.failures.values()),
                best=journal.best(),
                seconds=time.monotonic() - self.started,
                limit_seconds=None if minutes is None else minutes * 60,
                doing=doing,
            )
        )


@dataclass(frozen=True)
class _Opening:
    """A worker's first request for a bench, or one whose answer is waited for on the spot."""


@dataclass(frozen=True)
class _Measuring:
    config: Config
    compiled: Compiled


def _config_of(task: object) -> object:
    return task.config if isinstance(task, _Measuring) else task


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

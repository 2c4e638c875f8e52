"""The trials of one problem as a run sees them: what earlier runs left, and what this one adds, on disk at once."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

from attngen.config import Config
from attngen.database import Database, Status, Trial
from attngen.database.ranking import best_first, matches
from attngen.tuner.bench import Compiled, Timing
from attngen.tuner.task import Task

WHOLE_MATCH = 3  # the same templates and the same Triton


class Journal:
    """Writes trials of a task, and knows the best so far."""

    def __init__(self, task: Task, db: Database) -> None:
        self.task, self.db = task, db
        # A run of its own, also where one process starts several within a second.
        self.study = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{uuid4().hex[:8]}"
        self.history = db.trials(task.problem, target=task.target.name, source=task.source)
        triton = task.versions.triton
        self.trials = [t for t in self.history if matches(t, task.template, triton) == WHOLE_MATCH]
        self.earlier = _settled(self.trials)
        self.tried = 0
        self.failures: Counter[str] = Counter()

    @property
    def known(self) -> int:
        """Configs that earlier runs settled."""
        return len(self.earlier)

    def ranked(self) -> list[Trial]:
        """The trusted trial of each config that works, best first."""
        return best_first(self.trials)

    def best(self) -> Trial | None:
        return next(iter(self.ranked()), None)

    def best_ms(self) -> float | None:
        return min((t.median_ms for t in self.trials if t.status == "ok" and t.median_ms), default=None)

    def add(self, config: Config, status: Status, compiled: Compiled | None = None, **values: Any) -> Trial:
        """Record a config's first trial."""
        task = self.task
        if compiled is not None:
            values.update(registers=compiled.registers, spills=compiled.spills, shared=compiled.shared)
            values.update(compile_seconds=compiled.seconds)
        trial = Trial(
            problem=task.problem,
            target=task.target.name,
            config=config,
            status=status,
            source=task.source,
            spec=task.spec,
            kind=task.kind,
            description=task.description,
            device=task.device,
            template=task.template(config),
            versions=task.versions,
            study=self.study,
            **values,
        )
        self._write(trial)
        self.tried += 1
        if status != "ok":
            self.failures[status] += 1
        return trial

    def add_timing(self, config: Config, compiled: Compiled, timing: Timing) -> Trial:
        """Record a first measurement."""
        return self.add(config, "ok", compiled, **_times(timing))

    def add_final(self, trial: Trial, timing: Timing) -> Trial:
        """Record that a trial's config was measured again beside its rivals."""
        fresh = datetime.now(timezone.utc).replace(microsecond=0)
        final = trial.replace(**_times(timing), final=True, study=self.study, created=fresh)
        self._write(final)
        return final

    def _write(self, trial: Trial) -> None:
        self.db.record(trial)  # first, so that whatever ends this process loses nothing that it went by
        self.trials.append(trial)


def _times(timing: Timing) -> dict[str, Any]:
    return {"median_ms": timing.median_ms, "spread_ms": timing.spread_ms, "samples": timing.samples}


def _settled(trials: list[Trial]) -> dict[Config, Trial]:
    """The last trial of every config that need not be tried again: a crash or a timeout gets a second chance."""
    accidents = Counter(t.config for t in trials if t.status in ("crashed", "timeout"))
    last = {t.config: t for t in trials}
    return {c: t for c, t in last.items() if t.status not in ("crashed", "timeout") or accidents[c] > 1}

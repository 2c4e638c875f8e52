"""The database of trials: every one is kept, and a lookup finds the best config known for a problem."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from attngen.config import Config
from attngen.database.engine import resolve_url, sqlite_file
from attngen.database.kernels import packed, unpacked
from attngen.database.lookup import Candidate, find
from attngen.database.models import TrialRow
from attngen.database.ranking import Templates, best_first, no_templates
from attngen.database.shipped import shipped_targets, shipped_trials
from attngen.database.table import TrialTable
from attngen.database.text import read_tunings, write_tunings
from attngen.database.trial import Choice, Trial
from attngen.errors import UsageError, one_line
from attngen.problem import Problem
from attngen.target import Target

T = TypeVar("T")


def open_database(url: str | None = None, *, shipped: bool = True) -> Database:
    """The database of ``url`` (a file or a SQLAlchemy URL), else of ATTNGEN_DB, else the user's own.

    Nothing is created until something is recorded. ``shipped=False`` leaves the package's own tunings out.
    """
    return Database(url, shipped=shipped)


class Database:
    """Trials in SQL, with the shipped tunings beneath. Safe to use from many processes at once."""

    def __init__(self, url: str | None = None, *, shipped: bool = True) -> None:
        self.url = resolve_url(url)
        self.shipped = shipped
        self._table = TrialTable(self.url)

    def __repr__(self) -> str:
        return f"Database({self.url.render_as_string()!r})"

    # Writing

    def record(self, trial: Trial) -> None:
        """Keep one trial; it is on disk when this returns."""
        self.record_all([trial])

    def record_all(self, trials: Iterable[Trial]) -> int:
        """Keep trials, those already here left as they are; how many were new."""
        return self._table.insert(trials)

    def merge(self, other: Database) -> int:
        """Keep everything that another database has; how many trials were new."""
        return self.record_all(other.trials())

    def prune(
        self,
        keep: int = 8,
        *,
        target: str | None = None,
        before: datetime | None = None,
        dry_run: bool = False,
    ) -> int:
        """Drop all but the ``keep`` best trials of each problem on each GPU; how many went.

        ``before`` spares those that are younger. Trials of each source are judged apart.
        """
        groups: dict[tuple, list[Trial]] = {}
        for trial in self.trials(target=target):
            groups.setdefault((trial.problem, trial.target, trial.source), []).append(trial)
        going: list[str] = []
        for trials in groups.values():
            kept = {trial.fingerprint() for trial in best_first(trials)[:keep]}
            aged = [trial.fingerprint() for trial in trials if before is None or trial.created < before]
            going += [fingerprint for fingerprint in aged if fingerprint not in kept]
        if not dry_run and going:
            self._table.delete(going)
        return len(going)

    # Reading

    def trials(
        self,
        problem: Problem | None = None,
        *,
        target: str | None = None,
        digests: Sequence[str] | None = None,
        kernel: str | None = None,
        status: str | None = None,
        source: str | None = None,
        study: str | None = None,
        shipped: bool = False,
    ) -> list[Trial]:
        """Trials that match everything given, oldest first; ``problem`` means its very sizes.

        The package's own come first with ``shipped=True``, where this database shows them.
        """
        conditions: dict[str, Any] = dict(target=target, kernel=kernel, status=status, source=source, study=study)
        if problem is not None:
            conditions.update(asdict(problem))
        statement = select(TrialRow.__table__).order_by(TrialRow.created, TrialRow.id)
        for name, value in conditions.items():
            if value is not None:
                statement = statement.where(getattr(TrialRow, name) == value)
        if digests is not None:
            statement = statement.where(TrialRow.digest.in_(list(digests)))
        found = self._table.select(statement)
        if shipped:
            mine = {trial.fingerprint() for trial in found}
            found = [t for t in self._overlaid(target) if _meets(t, conditions, digests, mine)] + found
        return found

    def targets(self) -> list[str]:
        """Names of all GPUs that there are trials for, shipped ones included."""
        with_rows = self._table.rows(select(TrialRow.target).distinct())
        return sorted({row[0] for row in with_rows} | set(shipped_targets() if self.shipped else ()))

    def best(
        self, problem: Problem, target: Target | str, *, template: Templates = no_templates, triton: str = ""
    ) -> Trial | None:
        """The trial to prefer for exactly this problem on this GPU; a measured one before a modelled one."""
        name = target if isinstance(target, str) else target.name
        return next(iter(best_first(self.trials(problem, target=name, shipped=True), template, triton)), None)

    def lookup(
        self,
        problem: Problem,
        target: Target,
        *,
        template: Templates = no_templates,
        triton: str = "",
        accept: Callable[[Config], bool] | None = None,
    ) -> Choice | None:
        """The config to run: of this shape bucket, else the nearest length, else the nearest GPU, else None.

        Measured trials come before modelled ones, the user's own before shipped ones of the same shape, and those of
        today's ``template`` and ``triton`` before others. ``accept`` refuses configs that cannot run here.
        A database that cannot be read is a warning: the shipped tunings still answer.
        """
        return next(self.lookup_all(problem, target, template=template, triton=triton, accept=accept), None)

    def lookup_all(
        self,
        problem: Problem,
        target: Target,
        *,
        template: Templates = no_templates,
        triton: str = "",
        accept: Callable[[Config], bool] | None = None,
    ) -> Iterator[Choice]:
        """Every lookup answer in order of preference, one for each shape and GPU: seeds for a search."""
        candidates = self._or_warn(lambda: self._candidates(problem))
        if self.shipped:
            for name in shipped_targets():
                candidates += _shipped_candidates(name, problem)
        yield from find(candidates, problem, target, template=template, triton=triton, accept=accept)

    def _candidates(self, problem: Problem) -> list[Candidate]:
        columns = (TrialRow.target, TrialRow.source, TrialRow.batch, TrialRow.seq_q, TrialRow.seq_k)
        statement = (
            select(*columns)
            .where(TrialRow.kernel == problem.kernel, TrialRow.digest == problem.digest, TrialRow.status == "ok")
            .distinct()
        )

        def loader(shape: Problem, target: str) -> Callable[[], list[Trial]]:
            return lambda: self._or_warn(lambda: self.trials(shape, target=target))

        found = []
        for target, source, *sizes in self._table.rows(statement):
            shape = Problem(problem.kernel, problem.digest, *sizes)
            found.append(Candidate(shape, target, source, shipped=False, load=loader(shape, target)))
        return found

    # Compiled kernels

    def keep_kernel(self, source: str, key: str, files: Mapping[str, bytes]) -> None:
        """Keep a compiled kernel of a source's digest under Triton's key for it.

        In a file alone: what a server holds, others could have put there, and a kernel is code.
        """
        if sqlite_file(self.url) is not None:
            self._table.keep_kernel(source, key, packed(files))

    def kernels(self, source: str) -> dict[str, dict[str, bytes]]:
        """The compiled kernels of a source, by Triton's key: files by name."""
        if sqlite_file(self.url) is None:
            return {}
        rows = self._or_warn(lambda: list(self._table.kernels(source)))
        found = {key: unpacked(files) for key, files in rows}
        return {key: files for key, files in found.items() if files}

    # Text

    def export(self, *, target: str | None = None, everything: bool = False) -> dict[str, str]:
        """The text of one file for each GPU: the best trial of every problem, or every trial there is."""
        groups: dict[str, list[Trial]] = {}
        for trial in self.trials(target=target):
            groups.setdefault(trial.target, []).append(trial)
        return {
            name: write_tunings(name, trials if everything else best_of_each(trials))
            for name, trials in sorted(groups.items())
        }

    def import_text(self, text: str, source: str = "<string>") -> int:
        """Keep the tunings of an exported file, checked strictly first; how many were new."""
        return self.record_all(read_tunings(text, source))

    # Underneath

    def _overlaid(self, target: str | None) -> list[Trial]:
        names = shipped_targets() if target is None else (target,)
        return [trial for name in names for trial in shipped_trials(name)] if self.shipped else []

    def _or_warn(self, read: Callable[[], list[T]]) -> list[T]:
        try:
            return read()
        except (SQLAlchemyError, UsageError, OSError) as error:
            message = f"the tuning database {self.url} cannot be read: {one_line(str(error))}"
            warnings.warn(message, RuntimeWarning, stacklevel=4)
            return []


def best_of_each(trials: Iterable[Trial]) -> list[Trial]:
    """The preferred trial of every problem on every GPU."""
    groups: dict[tuple, list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.target, trial.problem), []).append(trial)
    return [best for group in groups.values() for best in best_first(group)[:1]]


def _shipped_candidates(target: str, problem: Problem) -> list[Candidate]:
    found: dict[tuple, list[Trial]] = {}
    for trial in shipped_trials(target):
        if (trial.problem.kernel, trial.problem.digest) == (problem.kernel, problem.digest):
            found.setdefault((trial.problem, trial.source), []).append(trial)
    return [
        Candidate(shape, target, source, shipped=True, load=partial(list, trials))
        for (shape, source), trials in found.items()
    ]


def _meets(trial: Trial, conditions: dict[str, Any], digests: Sequence[str] | None, known: set[str]) -> bool:
    values = {**vars(trial), **vars(trial.problem)}
    wanted = all(value is None or values[name] == value for name, value in conditions.items())
    return wanted and (digests is None or trial.problem.digest in digests) and trial.fingerprint() not in known

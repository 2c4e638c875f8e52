"""tune() and sweep(): what the command line calls."""

from __future__ import annotations

from attngen.database import Database
from attngen.plan import Plan
from attngen.problem import Problem
from attngen.target import Target
from attngen.tuner.loop import Limits, run
from attngen.tuner.result import Reporter, TuningResult
from attngen.tuner.task import task_for
from attngen.tuner.team import Team

DEFAULT_TRIALS = 100


def tune(
    plan: Plan,
    problem: Problem,
    target: Target,
    db: Database,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    workers: int | None = None,
    progress: Reporter | None = None,
    spec: str = "",
    seed: int = 0,
    team: Team | None = None,
) -> TuningResult:
    """Search for the best config of ``plan`` at ``problem``; every trial is kept in ``db``.

    Measures where this machine has the target's GPU, else ranks by the cost model (``source`` says which). Stops at
    ``trials`` known in all, earlier runs included, or after ``minutes``, whichever is first; DEFAULT_TRIALS when
    neither is given. A run that was killed goes on where it stopped. ``spec`` is the name to file it under. A ``team``
    of processes may be kept between calls; otherwise ``workers`` compilers are started and ended.
    """
    if trials is None and minutes is None:
        trials = DEFAULT_TRIALS
    task = task_for(plan, problem, target, spec=spec)
    limits = Limits(trials=trials, minutes=minutes)
    return run(task, db, limits=limits, team=team, workers=workers, report=progress, seed=seed)


def sweep(
    plan: Plan,
    problem: Problem,
    target: Target,
    db: Database,
    *,
    minutes: float | None = None,
    workers: int | None = None,
    progress: Reporter | None = None,
    spec: str = "",
    team: Team | None = None,
) -> TuningResult:
    """Try every feasible config, for comparison; takes up what is known and stops early only after ``minutes``."""
    task = task_for(plan, problem, target, spec=spec)
    return run(task, db, limits=Limits(minutes=minutes), team=team, workers=workers, report=progress, exhaustive=True)

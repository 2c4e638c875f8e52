"""The table of launch configs that an op carries: one row for each range of lengths that shares a config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from attngen.config import Config
from attngen.database import Database
from attngen.op.choose import Chooser
from attngen.plan import ForwardPlan, Plan
from attngen.plan.boxes import is_gluon, is_turned
from attngen.problem import Problem
from attngen.target import Target

LENGTHS = tuple(2**n for n in range(8, 18))  # 256 to 131072: shorter and longer sequences take the nearest
TOKENS = 16384  # of a problem that is looked up: shorter sequences come in larger batches


@dataclass(frozen=True)
class Row:
    """A config and the longest sequence that takes it; None is any length."""

    longest: int | None
    config: Config
    provenance: str


def config_table(plan: Plan, target: Target, db: Database | str | None) -> tuple[Row, ...]:
    """What ``target`` should run at each length, as the database and the defaults have it.

    Where something of Gluon is among it, rows follow that run everywhere and take any tensor. Kernels that take turned
    values stay out: a package has nothing that turns them.
    """
    forward = plan if isinstance(plan, ForwardPlan) else None
    rows = _rows(plan, target, db, lambda config: forward is None or not is_turned(forward, config))
    if any(is_gluon(row.config) for row in rows):
        rows += _rows(plan, target, db, _runs_anywhere)
    return rows


def _runs_anywhere(config: Config) -> bool:
    return not is_gluon(config) and config.get("loads", "pointer") == "pointer"


def _rows(plan: Plan, target: Target, db: Database | str | None, able: Callable[[Config], bool]) -> tuple[Row, ...]:
    chooser = Chooser(plan, db)
    rows: list[Row] = []
    for length in LENGTHS:
        problem = Problem(plan.kernel, plan.kind.digest(), max(TOKENS // length, 1), length, length)
        chosen = chooser.look_up(problem, target, able)
        if rows and rows[-1].config == chosen.config:
            nearest = "nearest" in rows[-1].provenance  # a length of the range itself says more
            rows[-1] = Row(length, chosen.config, chosen.provenance if nearest else rows[-1].provenance)
        else:
            rows.append(Row(length, chosen.config, chosen.provenance))
    last = rows[-1]
    return (*rows[:-1], Row(None, last.config, last.provenance))

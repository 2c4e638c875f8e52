"""The tables of launch configs of an op that attends to a selection of keys: one for each of its kernels."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

from attngen.config import Config
from attngen.database import Database
from attngen.op.choose import Chooser
from attngen.package.configs import Row, config_table
from attngen.package.op import Option, Tuning
from attngen.package.variants import Variant, variants_of
from attngen.package.words import WIDTH
from attngen.plan import Plan
from attngen.plan.boxes import is_gluon
from attngen.plan.indexer_hopper import IndexerShape
from attngen.plan.select import most_programs, scratch_elements
from attngen.plan.space.gathered import EVERY
from attngen.problem import Problem
from attngen.source.indexer import boxes
from attngen.target import Target

# Of each kernel: its table in the op's module, and what a row of it is called there.
NAMES = {
    "quantise": ("_NARROW", "Narrowing"),
    "indexer": ("_SCORE", "Scoring"),
    "select": ("_KEEP", "Keeping"),
    "gathered": ("_ATTEND", "Attending"),
    "block_select": ("_CHOOSE", "Choosing"),
    "routed": ("_ATTEND", "Routing"),
}
COMMENTS = {
    "BLOCK_H": "query heads of a tile",
    "BLOCK_M": "rows of a tile",
    "BLOCK_N": "keys of a tile",
    "BLOCK_Q": "queries of a tile",
    "num_stages": "key tiles in flight",
}
USUAL_ROWS = 4096  # that are narrowed at a time: one config does for all lengths


@dataclass(frozen=True)
class LaunchRow:
    """One way to launch a kernel, and for which lengths."""

    comment: tuple[str, ...]
    arguments: tuple[str, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Table:
    """The ways to launch one kernel."""

    name: str
    type: str
    rows: tuple[LaunchRow, ...]
    variants: tuple[Variant, ...]
    tunings: tuple[Tuning, ...]
    gluon: bool

    @property
    def single(self) -> bool:
        """Whether there is one way for all lengths, and no table."""
        return self.type == "Narrowing"


def launch_table(plan: Plan, function: str, target: Target, db: Database | str | None) -> Table:
    """How the op called ``function`` launches ``plan``'s kernel."""
    if plan.kernel == "quantise":
        problem = Problem(plan.kernel, plan.kind.digest(), 1, USUAL_ROWS, 1)
        chosen = Chooser(plan, db).look_up(problem, target)
        rows: tuple[Row, ...] = (Row(None, chosen.config, chosen.provenance),)
    else:
        rows = config_table(plan, target, db)
    by_config = variants_of(plan, f"{function}_{plan.kernel}", [row.config for row in rows], f"_{plan.kernel}")
    name, kind = NAMES[plan.kernel]
    return Table(
        name,
        kind,
        tuple(_row(plan, row, by_config[row.config], target) for row in rows),
        tuple(dict.fromkeys(by_config.values())),
        tuple(Tuning(f"{function}: {plan.kernel}", row.longest, row.config.label(), row.provenance) for row in rows),
        any(is_gluon(row.config) for row in rows),
    )


def _row(plan: Any, row: Row, variant: Variant, target: Target) -> LaunchRow:
    config = row.config
    longest = [f"longest={row.longest}" if row.longest else 'longest=float("inf")']
    longest = [] if plan.kernel == "quantise" else longest
    options = {name: config[name] for name in variant.source.constexprs} | variant.source.options
    where = f"Up to {row.longest}" if row.longest else "Any length"
    return LaunchRow(
        tuple(textwrap.wrap(f"{where}: {row.provenance}.", WIDTH - 6)),
        (*longest, f"kernel={variant.alias}", *_sizes(plan, config, variant, target)),
        tuple(Option(name, repr(value), _comment(plan, name)) for name, value in options.items()),
    )


def _comment(plan: Any, name: str) -> str:
    """Kernels that read rows once have no stages to speak of."""
    return "" if name == "num_stages" and plan.kernel in ("quantise", "select") else COMMENTS.get(name, "")


def _sizes(plan: Any, config: Config, variant: Variant, target: Target) -> tuple[str, ...]:
    """What a launch must know of a config besides."""
    hopper = ("hopper=True",) if is_gluon(config) else ()
    if plan.kernel == "quantise":
        return (f"rows={config['BLOCK_M']}",)
    if plan.kernel == "block_select":
        return (f"queries={config['BLOCK_Q']}",)
    if plan.kernel == "routed":
        described = (f"keys={config['BLOCK_N']}",) if config["loads"] == "descriptor" else ()
        return (f"rows={config['BLOCK_M']}", *described)
    if plan.kernel == "select":
        programs = most_programs(config, 1, target.warp_size)
        return (f"programs={programs}", f"candidates={scratch_elements(config)}", *hopper)
    if plan.kernel == "indexer":
        if not hopper:
            return (f"queries={config['BLOCK_Q']}",)
        shape = IndexerShape.of(plan, config)
        box = boxes(plan, shape)
        return (f"queries={shape.block_q}", *hopper, f"q_box={box['q_desc']}", f"k_box={box['k_desc']}")
    persistent = ("persistent=True",) if hopper and config["TURNS"] == EVERY else ()
    tickets = ("tickets=True",) if "ticket_ptr" in variant.source.parameters else ()
    return (f"heads={config['BLOCK_H']}", *hopper, *persistent, *tickets)

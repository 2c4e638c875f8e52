"""Which config a call runs, and where that choice comes from; looked up once a shape bucket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import triton

from attngen.config import Config
from attngen.database import Database, open_database
from attngen.op.descriptor import can_describe
from attngen.plan import Plan
from attngen.plan.boxes import is_gluon
from attngen.plan.space import default_config, feasible
from attngen.problem import Problem
from attngen.source import template_digest
from attngen.target import Target, detect, get_target

NO_GPU_TARGET = "h100"  # what configs are shown for where there is no GPU


@dataclass(frozen=True)
class Chosen:
    """A config and, in words, where it comes from."""

    config: Config
    provenance: str
    measured_ms: float | None = None  # its time, where that was measured of this bucket on this very kind of GPU


class Chooser:
    """Looks configs up for one plan; remembers the answer of every bucket."""

    def __init__(self, plan: Plan, db: Database | str | None = None) -> None:
        self.plan = plan
        self._db = db
        self._chosen: dict[tuple[Problem, bool, bool], Chosen] = {}

    def problem(self, q: torch.Tensor, k: torch.Tensor) -> Problem:
        return Problem(self.plan.kernel, self.plan.kind.digest(), q.shape[0], q.shape[2], k.shape[2])

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Chosen:
        """The choice for tensors of these shapes; CPU tensors get what the default target would run."""
        keys = can_describe(k) and can_describe(v)
        everything = keys and can_describe(q)
        key = (self.problem(q, k).bucket(), keys, everything)

        def able(config: Config) -> bool:
            return everything if is_gluon(config) else keys or config.get("loads") != "descriptor"

        chosen = self._chosen.get(key)
        if chosen is None:
            chosen = self._chosen[key] = self.look_up(key[0], target_here(), able)
        return chosen

    def at(self, problem: Problem, *, gluon: bool = True) -> Chosen:
        """The choice for a problem's bucket; without ``gluon``, among schedules that take tensors laid out anyhow."""
        key = (problem.bucket(), True, gluon)
        chosen = self._chosen.get(key)
        if chosen is None:
            able = (lambda config: True) if gluon else (lambda config: not is_gluon(config))
            chosen = self._chosen[key] = self.look_up(key[0], target_here(), able)
        return chosen

    def look_up(self, problem: Problem, target: Target, able: Callable[[Config], bool] = lambda config: True) -> Chosen:
        """The config for ``problem`` on ``target``, among those that the caller is ``able`` to use."""

        def accept(config: Config) -> bool:
            return able(config) and feasible(self.plan, config, target, problem) is None

        found = self._database().lookup(
            problem,
            target,
            template=partial(template_digest, self.plan.kernel),
            triton=triton.__version__,
            accept=accept,
        )
        if found is not None:
            measured = found.step == "exact" and found.trial.source == "measured"
            return Chosen(found.config, found.provenance, found.trial.median_ms if measured else None)
        config = default_config(self.plan, target, problem, able)
        return Chosen(config, f"default for {target.name}; 'attngen tune' finds a better one")

    def kernels(self, source: str) -> dict[str, dict[str, bytes]]:
        """What the database has compiled of a source's digest."""
        return self._database().kernels(source)

    def _database(self) -> Database:
        if not isinstance(self._db, Database):
            self._db = open_database(self._db)
        return self._db


def target_here() -> Target:
    """This machine's GPU, or the target that stands in for it."""
    return detect() or get_target(NO_GPU_TARGET)

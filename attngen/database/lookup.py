"""The order in which a lookup considers what the database has."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from attngen.config import Config
from attngen.database.ranking import (
    Templates,
    best_first,
    exactness,
    gpu_distance,
    no_templates,
    provenance,
    same_arch,
    shape_distance,
)
from attngen.database.trial import Choice, Trial
from attngen.problem import Problem
from attngen.target import Target


@dataclass(frozen=True)
class Candidate:
    """Trials of one shape on one GPU from one source, loaded only when they are considered."""

    shape: Problem
    target: str
    source: str  # "measured" or "model"
    shipped: bool
    load: Callable[[], Iterable[Trial]]


def find(
    candidates: Iterable[Candidate],
    problem: Problem,
    target: Target,
    *,
    template: Templates = no_templates,
    triton: str = "",
    accept: Callable[[Config], bool] | None = None,
) -> Iterator[Choice]:
    """Choices, best first. What was measured on this GPU or its like is worth more than what was modelled for it;
    what was measured on another architecture is worth less."""

    def rank(c: Candidate) -> int:
        if c.source == "measured":
            return 0 if c.target == target.name else 1 if same_arch(target, c.target) else 3
        return 2 if c.target == target.name else 4

    def order(c: Candidate) -> tuple:
        distance, within = exactness(problem, c.shape)
        return rank(c), gpu_distance(target, c.target), distance, c.shipped, within

    usable = [c for c in candidates if math.isfinite(gpu_distance(target, c.target))]
    for candidate in sorted(usable, key=order):
        trials = (t for t in candidate.load() if t.source == candidate.source)
        ranked = best_first(trials, template, triton)
        best = next((t for t in ranked if accept is None or accept(t.config)), None)
        if best is None:
            continue
        words = provenance(best, problem, target, shipped=candidate.shipped, template=template, triton=triton)
        yield Choice(best.config, words, best, _step(best, problem, target), candidate.shipped)


def _step(trial: Trial, problem: Problem, target: Target) -> Literal["exact", "nearest length", "nearest GPU"]:
    if trial.target != target.name:
        return "nearest GPU"
    return "exact" if shape_distance(trial.problem, problem) == 0 else "nearest length"

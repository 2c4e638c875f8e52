"""Which of many trials to trust, and how near one problem is to another. Pure functions over values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from attngen.config import Config
from attngen.database.trial import Trial
from attngen.problem import Problem
from attngen.target import TARGETS, Target

Templates = Callable[[Config], str]  # the digest of the templates that would make a config's code now


def no_templates(config: Config) -> str:
    """Where it is all the same which templates there are."""
    return ""


def shape_distance(a: Problem, b: Problem) -> float:
    """Octaves between two shapes; zero within one bucket. Batch counts little: it only adds programs."""

    def octaves(x: int, y: int) -> float:
        return abs(math.log2(x / y))

    p, q = a.bucket(), b.bucket()
    return octaves(p.seq_k, q.seq_k) + octaves(p.seq_q, q.seq_q) + 0.25 * octaves(p.batch, q.batch)


def exactness(a: Problem, b: Problem) -> tuple[float, float]:
    """Orders shapes by distance; within one bucket, the one whose own sizes are nearest is first."""
    within = abs(math.log2(a.seq_k / b.seq_k)) + abs(math.log2(a.seq_q / b.seq_q)) + abs(math.log2(a.batch / b.batch))
    return shape_distance(a, b), within


def gpu_distance(target: Target, name: str) -> float:
    """How unlike the GPU called ``name`` is; infinite for another maker's, and where only a name is known."""
    if name == target.name:
        return 0.0
    other = TARGETS.get(name)
    return math.inf if other is None else target.distance(other)


def same_arch(target: Target, name: str) -> bool:
    other = TARGETS.get(name)
    return name == target.name or (other is not None and (other.backend, other.arch) == (target.backend, target.arch))


def best_first(trials: Iterable[Trial], template: Templates = no_templates, triton: str = "") -> list[Trial]:
    """One trial for each config, the one to prefer first.

    Trials of today's templates and Triton come before others, if any. Then come configs measured again beside their
    rivals, judged by the latest such time alone: a time of its own says less, a GPU being faster while it is cool.
    Then the shortest time. A config that those templates made wrong even once is out.
    """
    trials = list(trials)
    wrong = {(t.config, t.template) for t in trials if t.status == "wrong"}
    ok = [t for t in trials if t.status == "ok" and t.median_ms and (t.config, t.template) not in wrong]
    ok.sort(key=lambda t: (t.source == "measured", matches(t, template, triton), t.final, t.created))
    judged: dict[Config, Trial] = {t.config: t for t in ok}  # the last, most trusted, of each config

    def preference(trial: Trial) -> tuple[bool, int, bool, float]:
        return (
            trial.source != "measured",
            -matches(trial, template, triton),
            not trial.final,
            trial.median_ms or math.inf,
        )

    return sorted(judged.values(), key=preference)


def matches(trial: Trial, template: Templates, triton: str) -> int:
    """How much of what is asked for (templates, Triton) is what the trial was made with."""
    return (trial.template == template(trial.config)) * 2 + (trial.versions.triton == triton)


def provenance(
    trial: Trial, problem: Problem, target: Target, *, shipped: bool, template: Templates, triton: str
) -> str:
    """In words: ``tuned on h100 (measured, 0.241 ms), this shape, shipped with attngen``."""
    p = trial.problem
    parts = [f"{'tuned on' if trial.source == 'measured' else 'chosen for'} {trial.target} ({_figure(trial)})"]
    if p == problem:
        parts.append("this problem")
    elif p.bucket() == problem.bucket():
        parts.append("this shape bucket")
    else:
        parts.append(f"nearest length (batch {p.batch}, {p.seq_q} x {p.seq_k})")
    if trial.target != target.name:
        parts.append("nearest GPU")
    if shipped:
        parts.append("shipped with attngen")
    older = _older(trial, template, triton)
    if older:
        parts.append(f"from {older}")
    return ", ".join(parts)


def _figure(trial: Trial) -> str:
    word = "measured" if trial.source == "measured" else "cost model"
    return f"{word}, {trial.median_ms:.3g} ms"


def _older(trial: Trial, template: Templates, triton: str) -> str:
    wanted = template(trial.config)
    differences: Sequence[str] = (
        "other templates" if wanted and trial.template and trial.template != wanted else "",
        f"triton {trial.versions.triton}"
        if triton and trial.versions.triton and trial.versions.triton != triton
        else "",
    )
    return " and ".join(d for d in differences if d)

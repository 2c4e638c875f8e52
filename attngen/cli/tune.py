"""``attngen tune``: the best config of each kind at a length, searched for and remembered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import click

from attngen.cli.options import (
    USUAL_SEQ,
    Positive,
    Whole,
    backward_option,
    batch_option,
    chosen_kinds,
    db_option,
    default_batch,
    json_option,
    kind_option,
    kinds_without_backward,
    quiet_option,
    resolve_target,
    seqs_option,
    spec_argument,
    target_option,
)
from attngen.cli.output import console, print_json, print_table, say, watched
from attngen.report.configs import brief, titled
from attngen.report.quantities import digits, duration
from attngen.spec import Kind, Spec, load_spec
from attngen.target import Target

if TYPE_CHECKING:
    from attngen.database import Database
    from attngen.plan import Plan
    from attngen.tuner import TuningResult


@click.command("tune")
@spec_argument
@target_option
@click.option(
    "--trials",
    type=Whole(1, 1 << 20),
    metavar="N",
    help="Configs to know of each kind and length. [100, or as many as --minutes allow]",
)
@click.option(
    "--minutes",
    type=Positive(),
    metavar="M",
    help="Time in all, beyond which only the default config is waited for; with --trials, whichever ends first.",
)
@click.option("--sweep", is_flag=True, help="Try every config that could work, for comparison.")
@click.option("--workers", type=Whole(1, 256), metavar="N", help="Processes that compile. [a core each]")
@kind_option
@seqs_option(str(USUAL_SEQ))
@click.option(
    "--queries", type=Whole(1, 1 << 30), metavar="N", help="Queries, the last of each sequence. [as many as keys]"
)
@batch_option
@backward_option
@db_option
@json_option
@quiet_option
def command(
    path: str,
    target: str | None,
    trials: int | None,
    minutes: float | None,
    sweep: bool,
    workers: int | None,
    kind: str | None,
    seqs: tuple[int, ...],
    queries: int | None,
    batch: int | None,
    backward: bool,
    db: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Search for the fastest config of each kind: measured on this GPU, else ranked by a cost model.

    Every trial is kept in the database, and a run that was ended goes on where it stopped.
    """
    from attngen.database import open_database

    spec = load_spec(path)
    gpu = resolve_target(target)
    kinds = chosen_kinds(spec, kind)
    problems = [
        Tuned(spec.name, one, default_batch(seq, batch), queries or seq, seq, backward)
        for one in (with_gradients(spec, kinds) if backward else kinds)
        for seq in seqs or (USUAL_SEQ,)
    ]
    results = search(
        problems,
        gpu,
        open_database(db),
        trials=trials,
        minutes=minutes,
        workers=workers,
        exhaustive=sweep,
        show=watched(quiet),
    )
    if as_json:
        print_json([result_values(one, result) for one, result in results])
    else:
        print_results(results, gpu)
    if any(result.best is None for _, result in results):
        raise click.exceptions.Exit(1)


def with_gradients(spec: Spec, kinds: Sequence[Kind]) -> Sequence[Kind]:
    """Those that have a backward pass, saying which are left out; all where none has."""
    reasons = kinds_without_backward(spec, [kind.name for kind in kinds])
    if len(reasons) == len(kinds):
        return kinds
    for name, reason in reasons.items():
        click.echo(f"attngen: {name}: no backward pass: {reason}", err=True)
    return [kind for kind in kinds if kind.name not in reasons]


class Tuned(NamedTuple):
    """A kind of a spec at some sizes, whose kernels are tuned: the forward ones, or those of its backward pass."""

    spec: str
    kind: Kind
    batch: int
    seq_q: int
    seq_k: int
    backward: bool = False

    def plans(self, target: Target) -> tuple[Plan, ...]:
        from attngen.plan.backward import plan_backward
        from attngen.plan.kernels import backward_plans_for, plans_of

        if not self.backward:
            return plans_of(self.kind, target, self.seq_k)
        plan_backward(self.kind)  # says why there is none
        return backward_plans_for(self.kind, target)


def search(
    problems: list[Tuned],
    target: Target,
    db: Database,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    workers: int | None = None,
    exhaustive: bool = False,
    show: bool = False,
    failed: Callable[[str, Exception], None] | None = None,
) -> list[tuple[Kind, TuningResult]]:
    """Tune each kernel of each problem in turn, with the same processes.

    ``minutes`` are shared.

    ``failed`` is told of a problem that could not be tuned, and the next goes on; without it the error ends all.
    """
    from attngen.plan.work import keys_of
    from attngen.problem import Problem
    from attngen.tuner import Team, progress_bar, sweep, tune

    jobs = [(tuned, plan) for tuned in problems for plan in tuned.plans(target)]
    end = None if minutes is None else time.monotonic() + 60 * minutes
    results = []
    with Team(workers) as team:
        for n, (tuned, plan) in enumerate(jobs):
            spec, kind, batch, seq_q, seq_k, _ = tuned
            problem = Problem(plan.kernel, plan.kind.digest(), batch, seq_q, keys_of(plan.kind, seq_k))
            share = None if end is None else max(end - time.monotonic(), 0.0) / 60 / (len(jobs) - n)
            if kind.branches:
                kind = replace(plan.kind, name=f"{kind.name}.{plan.kind.name}")
            title = f"{titled(kind.name, plan.kernel)}, {batch} x {seq_q} x {problem.seq_k}"
            try:
                with progress_bar(title, console(stderr=True)) if show else nullcontext() as report:
                    if exhaustive:
                        result = sweep(plan, problem, target, db, minutes=share, progress=report, spec=spec, team=team)
                    else:
                        result = tune(
                            plan,
                            problem,
                            target,
                            db,
                            trials=trials,
                            minutes=share,
                            progress=report,
                            spec=spec,
                            team=team,
                        )
            except Exception as error:
                if failed is None:
                    raise
                failed(f"{spec}, {title}", error)
                continue
            results.append((kind, result))
    return results


def print_results(results: list[tuple[Kind, TuningResult]], target: Target) -> None:
    """A line for each problem: how long the best config takes, and how much that is better than the default's."""
    columns = ["kind", "B x Sq x Sk", "time", "default", "gain", "tried", "known", "of", "failed", "config"]
    rows = []
    for kind, result in results:
        p = result.problem
        rows.append(
            [
                titled(kind.name, p.kernel),
                f"{p.batch} x {p.seq_q} x {p.seq_k}",
                "-" if result.best is None else duration(result.best.median_ms),
                "-" if result.default is None else duration(result.default.median_ms),
                "" if result.speedup is None else f"{digits(result.speedup)} x",
                str(result.tried),
                str(result.known),
                str(result.space),
                ", ".join(f"{count} {status}" for status, count in result.failures) or "0",
                _why_none(result) if result.best is None else brief(result.best.config),
            ]
        )
    measured = all(result.source == "measured" for _, result in results)
    say(f"tuned for {target.name}, {'measured on it' if measured else 'by the cost model'}", "bold")
    print_table(columns, rows, right=columns[2:8], wide=["failed", "config"])


def _why_none(result: TuningResult) -> str:
    return "none works" if result.tried or result.known else "none tried: the time was too short"


def result_values(kind: Kind, result: TuningResult) -> dict:
    """One result as plain values."""
    p = result.problem
    return {
        "kind": kind.name,
        "kernel": p.kernel,
        "batch": p.batch,
        "seq_q": p.seq_q,
        "seq_k": p.seq_k,
        "target": result.target,
        "source": result.source,
        "ms": None if result.best is None else result.best.median_ms,
        "default_ms": None if result.default is None else result.default.median_ms,
        "config": None if result.best is None else result.best.config.as_dict(),
        "tried": result.tried,
        "known": result.known,
        "space": result.space,
        "failures": dict(result.failures),
        "stopped": result.stopped,
        "seconds": result.seconds,
    }

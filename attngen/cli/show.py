"""``attngen show``: what is tuned, how fast it is, how near the chip's limit, and where each choice comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from attngen.cli.options import db_option, json_option, resolve_target, target_option
from attngen.cli.output import print_json, print_table, say
from attngen.report.configs import brief, titled
from attngen.report.quantities import digits, duration
from attngen.spec import Spec, load_spec
from attngen.target import Target

if TYPE_CHECKING:
    from attngen.database import Database
    from attngen.report.tunings import Tuning


@click.command("show")
@click.argument("path", metavar="[SPEC]", required=False)
@target_option
@db_option
@click.option("--trials", is_flag=True, help="List every trial, failures included.")
@click.option("--html", type=click.Path(dir_okay=False), metavar="FILE", help="Write a page that needs nothing else.")
@json_option
def command(
    path: str | None, target: str | None, db: str | None, trials: bool, html: str | None, as_json: bool
) -> None:
    """Show tuned configs and their speed, for SPEC or for everything in the database."""
    from attngen.database import open_database
    from attngen.report.tunings import named_target, one_or_two, tunings

    spec = None if path is None else load_spec(path)
    database = open_database(db)
    gpu = named_target(database, target) if target is not None else resolve_target(None)
    rows = tunings(database, gpu, spec)
    tried = _trials(database, gpu, spec) if trials else []
    if html is not None:
        from attngen.report.page import page

        Path(html).parent.mkdir(parents=True, exist_ok=True)
        Path(html).write_text(page(rows, gpu, spec), encoding="utf-8")
    if as_json:
        values = {"target": gpu.name, "tunings": [row.as_dict() for row in rows]}
        print_json(values | ({"trials": [trial.as_dict() for trial in tried]} if trials else {}))
        return
    if not rows:
        what = spec.name if spec is not None else "anything"
        say(f"nothing is tuned for {what} on {gpu.name}; 'attngen tune SPEC --target {gpu.name}' does that")
    else:
        print_tunings(rows, gpu, spec is not None)
        for row, two in one_or_two(rows):
            p, one = row.problem, duration(row.best.median_ms)
            sizes = f"{p.batch} x {p.seq_q} x {p.seq_k}"
            both = f"{one} by one kernel and {duration(two)} by two"
            say(f"{row.kind}, {sizes}: dq, dk and dv take {both}; calls run the faster")
    if trials:
        _print_trials(tried)
    if html is not None:
        say(f"wrote {html}")


def print_tunings(rows: list[Tuning], target: Target, one_spec: bool) -> None:
    """A line for each kernel of a kind and size."""
    columns = [
        "spec",
        "kind",
        "B x Sq x Sk",
        "time",
        "spread",
        "TFLOP/s",
        "GB/s",
        "roofline",
        "from",
        "config",
    ]
    lines = []
    for row in rows:
        p = row.problem
        lines.append(
            [
                "" if one_spec else row.spec,
                row.title,
                f"{p.batch} x {p.seq_q} x {p.seq_k}",
                duration(row.best.median_ms),
                duration(row.best.spread_ms) if row.best.source == "measured" else "",
                "" if row.tflops is None else digits(row.tflops),
                "" if row.gbps is None else digits(row.gbps),
                "" if row.share is None else f"{row.share:.0%}",
                row.origin,
                brief(row.config),
            ]
        )
    used = [n for n in range(len(columns)) if any(line[n] for line in lines)]
    columns, lines = [columns[n] for n in used], [[line[n] for n in used] for line in lines]
    say(f"tuned for {target.name}", "bold")
    print_table(columns, lines, right=["time", "spread", "TFLOP/s", "GB/s", "roofline"], wide=["from", "config"])


def _trials(database: Database, target: Target, spec: Spec | None) -> list:
    digests = None if spec is None else [kind.digest() for kind in spec.kinds]
    return database.trials(target=target.name, digests=digests, shipped=True)


def _print_trials(tried: list) -> None:
    columns = ["kind", "B x Sq x Sk", "status", "time", "registers", "spills", "shared", "config", "error"]
    rows = [
        [
            titled(trial.kind, trial.problem.kernel),
            f"{trial.problem.batch} x {trial.problem.seq_q} x {trial.problem.seq_k}",
            trial.status if trial.source == "measured" else f"{trial.status} (model)",
            duration(trial.median_ms) if trial.median_ms is not None else "",
            *("" if value is None else str(value) for value in (trial.registers, trial.spills, trial.shared)),
            brief(trial.config),
            trial.error[:80],
        ]
        for trial in tried
    ]
    print_table(columns, rows, right=["time", "registers", "spills", "shared"], wide=["config", "error"])

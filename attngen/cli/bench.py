"""``attngen bench``: generated kernels beside their peers, interleaved in one process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from attngen.cli.options import (
    USUAL_SEQ,
    Positive,
    batch_option,
    chosen_kinds,
    db_option,
    default_batch,
    kind_option,
    quiet_option,
    seqs_option,
)
from attngen.cli.output import console, print_json, print_table, say, watched
from attngen.errors import UsageError
from attngen.report.quantities import digits, duration
from attngen.spec import Spec, load_spec

if TYPE_CHECKING:
    from attngen.bench.cases import BenchCase
    from attngen.bench.peers import Peer
    from attngen.bench.results import HostRow, Row
    from attngen.bench.run import Bench

STDOUT = "-"


@click.command("bench")
@click.argument("path", metavar="[SPEC]", required=False)
@click.option("--suite", type=click.Choice(["dense", "window", "all"]), help="Cases that peers publish, not a spec's.")
@click.option(
    "--against",
    default="sdpa,cudnn,flex,fa3",
    show_default=True,
    metavar="LIST",
    help="Systems to measure beside: sdpa, cudnn, fa2, flex, fa3; or none.",
)
@click.option("--host", is_flag=True, help="Also what a call costs the host, and how long a first call takes.")
@click.option("--tune", "minutes", type=Positive(), metavar="M", help="Tune first, M minutes in all.")
@kind_option
@seqs_option(f"{USUAL_SEQ}, or those of the suite")
@batch_option
@db_option
@click.option(
    "--json", "json_file", metavar="FILE", help="Write the results to FILE; - is stdout, and nothing else is."
)
@quiet_option
def command(
    path: str | None,
    suite: str | None,
    against: str,
    host: bool,
    minutes: float | None,
    kind: str | None,
    seqs: tuple[int, ...],
    batch: int | None,
    db: str | None,
    json_file: str | None,
    quiet: bool,
) -> None:
    """Measure SPEC's kernels, or a suite's, side by side with other systems on this GPU.

    Exit status 1 if one of ours could not run or gave a wrong answer.
    """
    if (path is None) == (suite is None):
        raise UsageError("give either a SPEC or --suite dense, window or all")
    spec = None if path is None else load_spec(path)
    from attngen.bench import peers as peers_module
    from attngen.bench.host import measure_host
    from attngen.bench.results import as_json, write

    peers = peers_module.chosen(against)
    cases = _cases(spec, suite, kind, seqs, batch)
    bench, device = gpu_bench(db)
    present = [peer for peer in peers if not peer.missing()]
    notes = [f"{peer.title} is left out: {reason}" for peer in peers if (reason := peer.missing())]
    if minutes is not None:
        _tune(cases, bench, minutes, watched(quiet))
    say_table = json_file != STDOUT
    rows = _measure(bench, cases, present, say_table, watched(quiet))
    hosts = measure_host(bench, present) if host else []
    if hosts:
        hosts = [_with_first_calls(hosts[0], spec, cases[0], db), *hosts[1:]]
    if say_table:
        _print_host(hosts)
        for note in notes:
            say(note, "yellow")
    values = as_json(rows, hosts, device) | ({"notes": notes} if notes else {})
    if json_file == STDOUT:
        print_json(values)
    elif json_file is not None:
        write(Path(json_file), values)
        say(f"wrote {json_file}")
    if any(row.system == "attngen" and row.ms is None for row in rows):
        raise click.exceptions.Exit(1)


def gpu_bench(db: str | None) -> tuple[Bench, str]:
    """What measures on this machine's GPU, and the GPU's own name; UsageError where there is none."""
    from attngen.target import detect

    target = detect()
    if target is None:
        raise UsageError("bench measures on a GPU and this machine has none; 'attngen explain' shows what one could do")
    import torch

    from attngen.bench.run import Bench
    from attngen.database import open_database
    from attngen.tuner.timing import Timer

    return Bench(target, Timer(), db=open_database(db)), torch.cuda.get_device_name()


def _cases(
    spec: Spec | None, suite: str | None, kind: str | None, seqs: tuple[int, ...], batch: int | None
) -> list[BenchCase]:
    from attngen.bench.cases import spec_cases, suite_cases

    if spec is not None:
        sizes = [(default_batch(seq, batch), seq) for seq in seqs or (USUAL_SEQ,)]
        return spec_cases(spec, chosen_kinds(spec, kind), sizes)
    if kind is not None:
        raise UsageError("--kind is for a SPEC; a suite has kinds of its own")
    assert suite is not None
    return suite_cases(suite, seqs, batch)


def _tune(cases: list[BenchCase], bench: Bench, minutes: float, show: bool) -> None:
    """Tune every case, each for its share of the time."""
    from attngen.cli.tune import search
    from attngen.database import open_database

    problems = [(case.spec, case.kind, case.batch, case.seq) for case in cases]
    search(problems, bench.target, bench.db or open_database(), minutes=minutes, show=show)


def _measure(bench: Bench, cases: list[BenchCase], peers: list[Peer], print_rows: bool, show: bool) -> list[Row]:
    """Every case's rows, printed as they come."""
    from rich.status import Status

    from attngen.bench.run import measure

    rows: list[Row] = []
    measured = measure(bench, cases, peers)
    for case in cases:
        if show:
            with Status(f"measuring {case.name}", console=console(stderr=True)):
                found = next(measured)
        else:
            found = next(measured)
        rows += found
        if print_rows:
            print_case(case, found)
    return rows


def print_case(case: BenchCase, rows: list[Row]) -> None:
    """One case: a line for each system, and how many times its speed ours is."""
    ours = next((row.ms for row in rows if row.system == "attngen"), None)
    columns = ["system", "time", "spread", "TFLOP/s", "GB/s", "roofline", "our speed", ""]
    lines = [
        [
            row.system,
            duration(row.ms),
            duration(row.spread),
            "" if row.tflops is None else digits(row.tflops),
            "" if row.gbps is None else digits(row.gbps),
            "" if row.roofline is None else f"{row.roofline:.0%}",
            f"{row.ms / ours:.2f} x" if row.ms and ours and row.system != "attngen" else "",
            row.note,
        ]
        for row in rows
    ]
    say(f"{case.name}: batch {case.batch}, {case.seq} x {case.seq}", "bold")
    print_table(columns, lines, right=columns[1:7], wide=[""])
    say()


def _with_first_calls(row: HostRow, spec: Spec | None, case: BenchCase, db: str | None) -> HostRow:
    """Our row with the seconds of a first call, of the spec's first kind or of the first case."""
    from dataclasses import replace

    from attngen.bench.host import first_calls
    from attngen.spec import Spec

    one = Spec(case.spec, 1, (case.kind,), (case.kind.name,)) if spec is None else spec
    cold, warm = first_calls(one, case.batch, case.seq, db)
    return replace(row, first_cold_s=round(cold, 3), first_warm_s=round(warm, 3))


def _print_host(rows: list[HostRow]) -> None:
    if not rows:
        return
    columns = ["system", "host time of a call", "first call, cold cache", "warm cache", ""]
    lines = [
        [
            row.system,
            "-" if row.call_us is None else f"{row.call_us:.1f} us",
            "" if row.first_cold_s is None else f"{row.first_cold_s:.2f} s",
            "" if row.first_warm_s is None else f"{row.first_warm_s:.2f} s",
            row.note,
        ]
        for row in rows
    ]
    print_table(columns, lines, right=columns[1:4], wide=[""])
    say()

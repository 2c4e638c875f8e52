"""``attngen bench``: generated kernels beside their peers, interleaved in one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from subprocess import SubprocessError
from typing import TYPE_CHECKING, Any

import click

from attngen.cli.options import (
    USUAL_SEQ,
    Positive,
    backward_option,
    batch_option,
    chosen_kinds,
    db_option,
    default_batch,
    kind_option,
    quiet_option,
    seqs_option,
)
from attngen.cli.output import console, print_json, say, watched
from attngen.errors import UsageError, one_line, one_of
from attngen.spec import Spec, load_spec

if TYPE_CHECKING:
    from attngen.bench.cases import AnyCase, BenchCase
    from attngen.bench.results import HostRow, Row
    from attngen.bench.run import AnyPeer, Bench
    from attngen.cli.tune import Tuned

STDOUT = "-"
SUITE_NAMES = ("dense", "wide", "window", "fp8", "backward", "packed", "sparse", "all")


@click.command("bench")
@click.argument("path", metavar="[SPEC]", required=False)
@click.option(
    "--suite",
    type=click.Choice(SUITE_NAMES),
    help="Cases that peers publish, not a spec's.",
)
@click.option(
    "--cases", "parts", metavar="TEXT", multiple=True, help="Only cases with TEXT in their name; may be given again."
)
@click.option(
    "--against",
    default="sdpa,cudnn,flex,fa3,fa4,fa4-deterministic,deep_gemm,deep_gemm+topk,flash_mla,dense",
    metavar="LIST",
    help="Systems to measure beside: sdpa, cudnn, fa2, flex, fa3, fa4, fa4-deterministic (backward), deep_gemm, "
    "deep_gemm+topk, flash_mla, dense (all keys, by attngen); or all, or none. [all but fa2]",
)
@backward_option
@click.option("--host", is_flag=True, help="Also what a call costs the host, and how long a first call takes.")
@click.option("--tune", "minutes", type=Positive(), metavar="M", help="Tune first, M minutes in all.")
@kind_option
@seqs_option(f"{USUAL_SEQ}, or those of the suite")
@batch_option
@db_option
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    help="Write the results to FILE, in a folder to <gpu>.json; - is stdout, and nothing else is.",
)
@click.option("--merge", "merge_file", metavar="FILE", help="Put the results in place of the same cases' in FILE.")
@quiet_option
def command(
    path: str | None,
    suite: str | None,
    parts: tuple[str, ...],
    against: str,
    backward: bool,
    host: bool,
    minutes: float | None,
    kind: str | None,
    seqs: tuple[int, ...],
    batch: int | None,
    db: str | None,
    json_file: str | None,
    merge_file: str | None,
    quiet: bool,
) -> None:
    """Measure SPEC's kernels, or a suite's, side by side with other systems on this GPU.

    Exit status 1 if one of ours could not run or gave a wrong answer.
    """
    if (path is None) == (suite is None):
        raise UsageError(f"give either a SPEC or --suite {one_of(SUITE_NAMES)}")
    if backward and suite is not None:
        raise UsageError("--backward is for a SPEC; the cases of --suite backward are of the backward pass")
    spec = None if path is None else load_spec(path)
    from attngen.bench import peers as peers_module
    from attngen.bench.cases import BenchCase, matching
    from attngen.bench.host import measure_host
    from attngen.bench.machine import clocks, hardware, limits
    from attngen.bench.results import Run, as_json
    from attngen.bench.run import does
    from attngen.bench.sparse import SPARSE_PEERS
    from attngen.cli.bench_rows import print_host
    from attngen.database import current_versions

    cases = matching(_cases(spec, suite, kind, seqs, batch, backward), parts)
    systems: dict[str, AnyPeer] = {**peers_module.PEERS, **SPARSE_PEERS}
    peers = [peer for peer in peers_module.chosen(against, systems) if any(does(peer, case) for case in cases)]
    bench, device = gpu_bench(db)
    writers = _writers(json_file, merge_file, bench.target.name, device)
    missing = {peer.name: reason for peer in peers if (reason := peer.missing())}
    present = [peer for peer in peers if peer.name not in missing]
    notes = [f"{peer.title} is left out: {missing[peer.name]}" for peer in peers if peer.name in missing]
    if minutes is not None:
        notes += _tune(cases, bench, minutes, watched(quiet))
    run = Run(
        device=device,
        hardware=hardware(bench.target),
        versions=current_versions().as_dict() | peers_module.versions(present),
        clocks=clocks(),
        limits=limits(bench.target),
        missing=missing,
        notes=tuple(notes),
        id=new_run_id(),
    )

    def save(rows: list[Row], hosts: list[HostRow]) -> None:
        for writer in writers:
            writer(as_json(run, rows, hosts))

    say_table = json_file != STDOUT
    with bench.log:
        rows = _measure(bench, cases, present, say_table, watched(quiet), lambda rows: save(rows, []))
    forward = [case for case in cases if isinstance(case, BenchCase) and not case.backward]
    of_host = [peer for peer in present if isinstance(peer, peers_module.Peer) and not peer.only_backward]
    hosts = measure_host(bench, of_host) if host else []
    if hosts and forward:
        hosts = [_with_first_calls(hosts[0], spec, forward[0], db), *hosts[1:]]
    if hosts:
        save(rows, hosts)
    if say_table:
        print_host(hosts)
        for note in notes:
            say(note, "yellow")
        for file in _files(json_file, merge_file, bench.target.name):
            say(f"wrote {file}")
    else:
        print_json(as_json(run, rows, hosts))
    if any(row.system == "attngen" and row.ms is None for row in rows):
        raise click.exceptions.Exit(1)


def new_run_id() -> str:
    """Of a run that begins now."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


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
    spec: Spec | None, suite: str | None, kind: str | None, seqs: tuple[int, ...], batch: int | None, backward: bool
) -> list[AnyCase]:
    from attngen.bench.cases import spec_cases, suite_cases

    if spec is not None:
        sizes = [(default_batch(seq, batch), seq) for seq in seqs or (USUAL_SEQ,)]
        return [*spec_cases(spec, chosen_kinds(spec, kind), sizes, backward)]
    if kind is not None:
        raise UsageError("--kind is for a SPEC; a suite has kinds of its own")
    assert suite is not None
    return suite_cases(suite, seqs, batch)


def _files(json_file: str | None, merge_file: str | None, gpu: str) -> list[Path]:
    """The files to write; in a folder the one that is named for the GPU."""
    names = [name for name in (json_file, merge_file) if name is not None and name != STDOUT]
    folders = [name.endswith("/") or Path(name).is_dir() for name in names]
    return [Path(name) / f"{gpu}.json" if folder else Path(name) for name, folder in zip(names, folders, strict=True)]


def _writers(
    json_file: str | None, merge_file: str | None, gpu: str, device: str
) -> list[Callable[[dict[str, Any]], None]]:
    """What to do with results as they grow: a run that is ended leaves what it has measured."""
    from attngen.bench.results import check_device, read, write

    writers: list[Callable[[dict[str, Any]], None]] = []
    for file in _files(json_file, None, gpu):
        writers.append(partial(write, file))
    for file in _files(None, merge_file, gpu):
        old = read(file)
        check_device(old, device)
        writers.append(partial(_merge, file, old))
    return writers


def _merge(file: Path, old: dict[str, Any], values: dict[str, Any]) -> None:
    from attngen.bench.results import merged, write

    write(file, merged(old, values))


def _tune(cases: list[AnyCase], bench: Bench, minutes: float, show: bool) -> list[str]:
    """Tune every case, each for its share of the time; what went wrong, for untuned kernels can be measured too."""
    from attngen.cli.tune import search
    from attngen.database import open_database

    of_cases = list(dict.fromkeys(_tuned(case) for case in cases))
    faults: list[str] = []

    def failed(problem: str, error: Exception) -> None:
        faults.append(one_line(f"not tuned: {problem}: {type(error).__name__}: {error}"))

    search(of_cases, bench.target, bench.db or open_database(), minutes=minutes, show=show, failed=failed)
    return faults


def _tuned(case: AnyCase) -> Tuned:
    from attngen.bench.sparse_cases import SparseCase
    from attngen.cli.tune import Tuned

    if isinstance(case, SparseCase):
        return Tuned(case.spec, case.kind, case.batch, case.seq_q, case.seq_k)
    return Tuned(case.spec, case.kind, case.batch, case.seq, case.seq, case.backward)


def _measure(
    bench: Bench,
    cases: list[AnyCase],
    peers: list[AnyPeer],
    print_rows: bool,
    show: bool,
    save: Callable[[list[Row]], None],
) -> list[Row]:
    """Every case's rows, printed and saved as they come."""
    from rich.status import Status

    from attngen.bench.run import case_work, measure
    from attngen.cli.bench_rows import print_case

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
            work = case_work(bench, case) if any(row.ms for row in found) else None
            print_case(case, found, work, bench.target)
        save(rows)
    return rows


def _with_first_calls(row: HostRow, spec: Spec | None, case: BenchCase, db: str | None) -> HostRow:
    """Our row with the seconds of a first call, of the spec's first kind or of the first case."""
    from attngen.bench.host import first_calls
    from attngen.spec import Spec

    one = Spec(case.spec, 1, (case.kind,), (case.kind.name,)) if spec is None else spec
    try:
        cold, warm = first_calls(one, case.batch, case.seq, db)
    except (SubprocessError, ValueError) as error:
        return replace(row, note=one_line(f"no first call: {error}"))
    return replace(row, first_cold_s=round(cold, 3), first_warm_s=round(warm, 3))

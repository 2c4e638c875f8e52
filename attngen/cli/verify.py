"""``attngen verify``: generated kernels against the float64 reference, on this GPU or in the interpreter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import click

from attngen.cli.options import (
    chosen_kinds,
    db_option,
    json_option,
    kind_option,
    kinds_without_backward,
    machine_gpu,
    quiet_option,
    resolve_target,
    seqs_option,
    spec_argument,
    target_option,
)
from attngen.cli.output import console, print_json, print_table, say, watched
from attngen.errors import UsageError
from attngen.spec import Spec, load_spec
from attngen.target import Target

if TYPE_CHECKING:
    from attngen.verify.finding import Finding


@click.command("verify")
@spec_argument
@kind_option
@seqs_option("several ragged ones")
@click.option("--interpret", is_flag=True, help="In Triton's interpreter on the CPU, as is done where there is no GPU.")
@target_option
@db_option
@json_option
@quiet_option
def command(
    path: str,
    kind: str | None,
    seqs: tuple[int, ...],
    interpret: bool,
    target: str | None,
    db: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare every kind's kernels with the float64 reference; exit status 1 if one is wrong."""
    spec = load_spec(path)
    names = [one.name for one in chosen_kinds(spec, kind)]
    here = None if interpret else machine_gpu()
    gpu = here if target is None and here is not None else resolve_target(target)
    if here is not None and here.name != gpu.name:
        raise UsageError(f"kernels run on this machine's {here.name}, not on {gpu.name}; --interpret needs no GPU")
    found = list(watch(findings(spec, names, gpu, db, seqs, on_gpu=here is not None), spec, watched(quiet)))
    forward_only = kinds_without_backward(spec, names)
    if as_json:
        where = gpu.name if here is not None else "interpreter"
        of_all = {"findings": [f.as_dict() for f in found], "no_backward_pass": forward_only}
        print_json({"name": spec.name, "where": where, "ok": passed(found), **of_all})
    else:
        print_findings(found, gpu if here is not None else None, forward_only)
    if not passed(found):
        raise click.exceptions.Exit(1)


def findings(
    spec: Spec, names: list[str], target: Target, db: str | None, seqs: tuple[int, ...] = (), *, on_gpu: bool
) -> Iterator[Finding]:
    """What verification finds for the kinds named, as it finds it."""
    if on_gpu:
        from attngen.verify.kinds import verify_kinds

        return verify_kinds([spec.kind(name) for name in names], target, db=db, seqs=seqs)
    from attngen.verify.interpreted import verify_interpreted

    return verify_interpreted(spec, names, target, db=db, seqs=seqs)


def passed(found: Iterable[Finding]) -> bool:
    """Whether something was verified and nothing was wrong."""
    found = list(found)
    return any(f.status == "ok" for f in found) and not any(f.status == "failed" for f in found)


def print_findings(found: list[Finding], target: Target | None, forward_only: Mapping[str, str]) -> None:
    """A line for each kind and size, each with its worst config; then every fault, and the kinds that are
    ``forward_only``, with why."""
    columns = ["kind", "B x Sq x Sk", "kernels", "error / allowed", "lse error / allowed", ""]
    rows = []
    for title, case in dict.fromkeys((f.title, f.case) for f in found):
        group = [f for f in found if (f.title, f.case) == (title, case)]
        worst = max(group, key=lambda f: (f.status == "failed", f.error))
        bad = sum(f.status == "failed" for f in group)
        rows.append(
            [
                title,
                case,
                str(sum(f.status != "skipped" for f in group)),
                f"{worst.error:.2g} / {worst.allowed:.2g}",
                f"{worst.lse_error:.1e} / {worst.lse_allowed:.1e}" if worst.lse_allowed else "-",
                f"{bad} wrong" if bad else "ok",
            ]
        )
    print_table(columns, rows, right=columns[2:5])
    for f in found:
        if f.status != "ok":
            say(f"{f.status}: {f.title}, {f.case}, {f.config}: {f.fault}", "red" if f.status == "failed" else "yellow")
    for name, reason in forward_only.items():
        say(f"{name}: no backward pass: {reason}")
    if target is not None:
        where = f"on {target.name}, in the spec's dtype; the error is relative L2"
    else:
        where = (
            "in Triton's interpreter, which takes no Gluon: in float16 or FP8, windows and lists cut "
            "short; the error is the worst element's of its bound"
        )
    if any(f.kernel == "select" for f in found):
        where += "; an indexer's is the worst logit's of its bound, a selection's the rows that differ"
    if any(f.kernel.startswith("backward") for f in found):
        where += "; a gradient's is relative L2, as a share of what rounding explains"
    kernels = len({(f.kind, f.kernel, f.config) for f in found})
    wrong = sum(f.status == "failed" for f in found)
    say(f"{kernels} kernels, {len(found)} comparisons with the float64 reference: {wrong or 'none'} wrong")
    say(where, "dim")


def watch(found: Iterator[Finding], spec: Spec, show: bool) -> Iterator[Finding]:
    """The same findings, counted on stderr while somebody watches."""
    if not show:
        yield from found
        return
    from rich.status import Status

    with Status(f"verifying {spec.name}", console=console(stderr=True)) as status:
        for number, finding in enumerate(found, 1):
            status.update(f"verifying {spec.name}: {finding.title}, {finding.case}, {number} comparisons")
            yield finding

"""``attngen run``: the main job, from a spec to verified and tuned kernels."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from attngen.cli.check import print_spec
from attngen.cli.generate import write
from attngen.cli.options import (
    USUAL_SEQ,
    Positive,
    Whole,
    batch_option,
    db_option,
    default_batch,
    json_option,
    kinds_without_backward,
    machine_gpu,
    quiet_option,
    resolve_target,
    seq_option,
    spec_argument,
    target_option,
)
from attngen.cli.output import print_json, print_table, say, watched
from attngen.cli.show import print_tunings
from attngen.cli.tune import Tuned, search
from attngen.cli.verify import findings, passed, print_findings, watch
from attngen.report.configs import brief, titled
from attngen.report.layers import counted
from attngen.report.quantities import duration
from attngen.spec import EXTERNAL, Kind, Spec, load_spec
from attngen.target import Target

if TYPE_CHECKING:
    from attngen.database import Database
    from attngen.report.tunings import Tuning
    from attngen.verify.finding import Finding

FOLDER = "generated"
MODEL_TRIALS = 16  # of each kind by the cost model: each is a compilation
GPU_MINUTES = 2.0


@dataclass
class Job:
    """What the main job works on, and what came of each step."""

    path: str
    spec: Spec
    target: Target
    on_gpu: bool
    db_url: str | None
    out: str
    batch: int
    seq: int
    show: bool
    speak: bool
    started: float = field(default_factory=time.monotonic)
    files: int = 0
    kernels: list[dict[str, Any]] = field(default_factory=list)
    found: list[Finding] = field(default_factory=list)
    tunings: list[Tuning] = field(default_factory=list)


@click.command("run")
@spec_argument
@click.option("--out", metavar="DIR", help=f"Folder of the generated package. [{FOLDER}/ and the spec's name]")
@click.option(
    "--trials",
    type=Whole(1, 1 << 20),
    metavar="N",
    help=f"Configs to know of each kind. [{MODEL_TRIALS} without a GPU]",
)
@click.option("--minutes", type=Positive(), metavar="M", help=f"Time for tuning, in all. [{GPU_MINUTES:g} on a GPU]")
@seq_option(str(USUAL_SEQ))
@batch_option
@target_option
@db_option
@json_option
@quiet_option
def command(
    path: str,
    out: str | None,
    trials: int | None,
    minutes: float | None,
    seq: int | None,
    batch: int | None,
    target: str | None,
    db: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check, generate, verify, tune and show: the main job.

    On this machine's GPU; without one, or with another --target, kernels are cross-compiled, verified in Triton's
    interpreter and tuned by a cost model.
    """
    from attngen.plan.kernels import plans_of

    spec = load_spec(path)
    here = machine_gpu()
    gpu = resolve_target(target) if target is not None or here is None else here
    for kind in spec.kinds:
        plans_of(kind, gpu)  # refuses before anything is done
    job = Job(
        path=path,
        spec=spec,
        target=gpu,
        on_gpu=here is not None and here.name == gpu.name,
        db_url=db,
        out=out or f"{FOLDER}/{package_name(spec)}",
        batch=default_batch(seq or USUAL_SEQ, batch),
        seq=seq or USUAL_SEQ,
        show=watched(quiet),
        speak=not as_json,
    )
    _check(job)
    _generate(job)
    ok = _verify(job)
    if ok:
        ok = _tune(job, trials, minutes)
        _show(job)
    if as_json:
        print_json(_values(job, ok))
    elif ok:
        _conclude(job)
    if not ok:
        raise click.exceptions.Exit(1)


def package_name(spec: Spec) -> str:
    """The spec's name as a name that Python can import."""
    name = re.sub(r"\W", "_", spec.name)
    return name if name.isidentifier() else f"attention_{name}"


def _step(job: Job, number: int, title: str) -> None:
    if job.speak:
        say(f"\n{number}. {title}", "bold cyan")


def _check(job: Job) -> None:
    if job.speak:
        print_spec(job.spec)


def _generate(job: Job) -> None:
    """Write the package, and compile the kernels that a call of each kind launches by default, for the target."""
    from attngen.database import open_database
    from attngen.op.choose import Chooser
    from attngen.plan.kernels import launched_plans
    from attngen.problem import Problem
    from attngen.source import compile_source

    _step(job, 1, f"generate: kernels for {job.target.name} ({job.target.arch_name})")
    job.files = len(write(job.spec, job.out, job.target, job.db_url))
    db = open_database(job.db_url)
    for kind in job.spec.kinds:
        for plan in launched_plans(kind, job.target):
            problem = Problem(plan.kernel, plan.kind.digest(), job.batch, job.seq, job.seq)
            config = Chooser(plan, db).look_up(problem, job.target).config
            needs = compile_source(plan, config, job.target)
            job.kernels.append(
                {
                    "kind": f"{kind.name}.{plan.kind.name}" if kind.branches else kind.name,
                    "kernel": plan.kernel,
                    "config": brief(config),
                    "registers": needs.registers,
                    "spills": needs.spills,
                    "shared": needs.shared,
                    "seconds": round(needs.seconds, 2),
                }
            )
    if job.speak:
        columns = ["kind", "registers", "spilled bytes", "shared memory", "compiled in", "config"]
        rows = [
            [
                titled(k["kind"], k["kernel"]),
                str(k["registers"]),
                str(k["spills"]),
                str(k["shared"]),
                f"{k['seconds']:.1f} s",
                k["config"],
            ]
            for k in job.kernels
        ]
        print_table(columns, rows, right=columns[1:5], wide=["config"])


def _verify(job: Job) -> bool:
    _step(job, 2, f"verify: {'on this GPU' if job.on_gpu else 'in the interpreter, for there is no such GPU here'}")
    names = [kind.name for kind in job.spec.kinds]
    found = findings(job.spec, names, job.target, job.db_url, on_gpu=job.on_gpu)
    job.found = list(watch(found, job.spec, job.show))
    if job.speak:
        print_findings(job.found, job.target if job.on_gpu else None, kinds_without_backward(job.spec, names))
    return passed(job.found)


def _tune(job: Job, trials: int | None, minutes: float | None) -> bool:
    how = "measured" if job.on_gpu else "by the cost model"
    _step(job, 3, f"tune: {how}, at {job.batch} x {job.seq} x {job.seq}")
    if trials is None and minutes is None:
        trials, minutes = (None, GPU_MINUTES) if job.on_gpu else (MODEL_TRIALS, None)
    kinds = [kind for kind in job.spec.kinds if job.on_gpu or _modelled(job, kind)]
    problems = [Tuned(job.spec.name, kind, job.batch, job.seq, job.seq) for kind in kinds]
    results = search(problems, job.target, _database(job), trials=trials, minutes=minutes, show=job.show)
    if job.speak:
        for kind, result in results:
            title = titled(kind.name, result.problem.kernel)
            say(f"{title}: {result.tried} tried, {result.known} known before, of {result.space}")
        for kind in (kind for kind in job.spec.kinds if kind not in kinds):
            say(f"{kind.name}: tuned on {job.target.name} itself; the cost model knows attention to every key")
    return all(result.best is not None for _, result in results)


def _modelled(job: Job, kind: Kind) -> bool:
    """Whether the cost model knows the kernels that a call of ``kind`` launches."""
    from attngen.plan.kernels import plans_of

    return all(plan.kernel == "forward" for plan in plans_of(kind, job.target, job.seq))


def _show(job: Job) -> None:
    """Write the package again, now with the tuned configs, and show them."""
    from attngen.report.tunings import tunings

    job.files = len(write(job.spec, job.out, job.target, job.db_url))
    job.tunings = [row for row in tunings(_database(job), job.target, job.spec) if _here(job, row)]
    _step(job, 4, "show")
    if job.speak and job.tunings:
        print_tunings(job.tunings, job.target, one_spec=True)


def _here(job: Job, row: Tuning) -> bool:
    return (row.problem.batch, row.problem.seq_q, row.problem.seq_k) == (job.batch, job.seq, job.seq)


def _database(job: Job) -> Database:
    from attngen.database import open_database

    return open_database(job.db_url)


def _conclude(job: Job) -> None:
    """What was made, where, how fast it is, and what to do with it."""
    kernels = len({(f.kind, f.kernel, f.config) for f in job.found})
    where = f"on {job.target.name}" if job.on_gpu else "in the interpreter"
    say(f"\n{job.spec.name} is done, in {time.monotonic() - job.started:.0f} s", "bold green")
    say(f"code      {job.out}/, {counted(job.files, 'file')}; needs only torch and triton")
    say(f"right     {counted(kernels, 'kernel')} {where} against the float64 reference, none wrong")
    for row in job.tunings:
        share = "" if row.share is None else f", {row.share:.0%} of the roofline"
        modelled = "" if row.best.source == "measured" else f", modelled for {job.target.name}"
        p = row.problem
        size = f"{p.batch} x {p.seq_q} x {p.seq_k}"
        say(f"speed     {row.title}: {duration(row.best.median_ms)} at {size}{share}{modelled}")
    say(f"tunings   {_database(job).url.render_as_string()}")
    if not job.on_gpu:
        say(f"next      on the GPU itself, 'attngen tune {job.path}' measures")
    say("Python    import attngen")
    say(f"          attn = attngen.load({job.path!r})")
    say(f"          out = attn({_arguments(job.spec)})")


def _arguments(spec: Spec) -> str:
    """Of an example call: the first layer that is attention."""
    layer, kind = next((n, spec.kind(name)) for n, name in enumerate(spec.layer_kinds) if name != EXTERNAL)
    values = "" if kind.latent is not None else ", v"
    index = ", index_q=index_q, index_k=index_k, index_weights=weights"
    if kind.branches:
        index = ", gates=gates"
    elif kind.select is None or kind.select.top_k is None:
        index = ""
    elif kind.select.indexer is None:
        index = ", indices=indices"
    return f"q, k{values}, layer={layer}{index}"


def _values(job: Job, ok: bool) -> dict[str, Any]:
    return {
        "name": job.spec.name,
        "target": job.target.name,
        "measured": job.on_gpu,
        "ok": ok,
        "package": job.out,
        "kernels": job.kernels,
        "findings": [finding.as_dict() for finding in job.found],
        "tunings": [row.as_dict() for row in job.tunings],
        "seconds": round(time.monotonic() - job.started, 1),
    }

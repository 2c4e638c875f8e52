"""``attngen explain``: a picture of each mask, what it costs, and how its kernel goes over the keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from attngen.cli.options import (
    batch_option,
    chosen_kinds,
    default_batch,
    json_option,
    kind_option,
    resolve_target,
    seq_option,
    spec_argument,
    target_option,
)
from attngen.cli.output import console, print_json, print_table, say
from attngen.report import layers
from attngen.report.decided import decided, telling_length
from attngen.report.quantities import duration, quantity, share
from attngen.spec import Kind, Spec, load_spec
from attngen.target import Target

LINES = 20  # of a picture


@click.command("explain")
@spec_argument
@kind_option
@seq_option("long enough to show every window")
@batch_option
@target_option
@click.option("--png", type=click.Path(dir_okay=False), metavar="FILE", help="Draw the masks into FILE.")
@json_option
def command(
    path: str, kind: str | None, seq: int | None, batch: int | None, target: str | None, png: str | None, as_json: bool
) -> None:
    """Show what a spec means: a picture of each mask, FLOPs, bytes, roofline, and the kernel's loops."""
    spec = load_spec(path)
    kinds = chosen_kinds(spec, kind)
    gpu = resolve_target(target)
    seq = seq or telling_length(spec)
    batch = default_batch(seq, batch)
    if png is not None:
        from attngen.report.plot import draw

        draw(spec, kinds, seq, batch, gpu, Path(png))
    if as_json:
        print_json({"name": spec.name, "kinds": [_values(spec, one, batch, seq, gpu) for one in kinds]})
        return
    for n, one in enumerate(kinds):
        if n:
            say()
        _print_kind(spec, one, batch, seq, gpu)
    if png is not None:
        say(f"\nwrote {png}")


def _print_kind(spec: Spec, kind: Kind, batch: int, seq: int, target: Target) -> None:
    from attngen.plan import plan_forward
    from attngen.report.arguments import OPTIONAL, needed
    from attngen.report.loops import loops_in_words
    from attngen.report.picture import framed, picture

    known, left_out = decided(kind)
    plan = plan_forward(known)
    out = console()
    say(f"{kind.name}: layers {layers.compressed(layers.layers_of(spec, kind.name))} of {spec.name}", "bold")
    say(f"query i sees key j when {layers.sees(kind)}")
    if scores := layers.scores(kind):
        say(f"scores: {scores}")
    colour = out.color_system in ("256", "truecolor")
    drawing = picture(kind, seq, seq, 2 * LINES if colour else LINES)
    for line in framed(drawing, colour):
        out.print(line)
    if drawing.assumed:
        say(f"drawn as if: {', '.join(drawing.assumed)}")
    if left_out:
        say(f"not generated yet: {', '.join(left_out)}; picture and figures are without", "yellow")
    say()
    _print_work(plan, batch, seq, target)
    say("\nkeys that a tile of queries, first to last, goes over:")
    for sentence in loops_in_words(plan):
        say(f"  {sentence}")
    say(f"\narguments beside q, k, v ({layers.heads(kind)} heads, head_dim {layers.head_dim(kind)}, {kind.dtype}):")
    for name, shape, meaning in needed(kind):
        say(f"  {name}: {shape}, {meaning}")
    for name, shape, meaning in OPTIONAL:
        say(f"  {name}: optional, {shape}, {meaning}", "dim")


def _print_work(plan: Any, batch: int, seq: int, target: Target) -> None:
    from attngen.report.work import work_of

    work = work_of(plan, batch, seq, seq, target)
    say(
        f"batch {batch}, {seq} x {seq}: {work.pairs} of {work.all_pairs} pairs are visible "
        f"({share(work.pairs, work.all_pairs)}) in each head"
    )
    kind = plan.kind
    rates = {
        "math": (quantity(work.flops, "FLOP"), quantity(target.peak_flops(kind.dtype), "FLOP/s")),
        "bytes": (quantity(work.bytes, "B"), quantity(target.memory_bandwidth, "B/s")),
        "exponentials": (quantity(work.exps, "").strip(), quantity(target.exp2_rate, "/s")),
    }
    rows = [
        [name, *rates[name], duration(ms), "<- the limit" if name == work.bound else ""]
        for name, ms in work.limits.items()
    ]
    columns = ["what", "amount", f"{target.name} does", "at least", ""]
    print_table(columns, rows, right=columns[1:4])


def _values(spec: Spec, kind: Kind, batch: int, seq: int, target: Target) -> dict[str, Any]:
    from attngen.plan import plan_forward
    from attngen.report.arguments import needed
    from attngen.report.loops import loops_in_words
    from attngen.report.work import work_of

    known, left_out = decided(kind)
    plan = plan_forward(known)
    return {
        **layers.kind_values(spec, kind),
        "batch": batch,
        "seq": seq,
        "target": target.name,
        "left_out": list(left_out),
        "work": work_of(plan, batch, seq, seq, target).as_dict(),
        "loops": loops_in_words(plan),
        "arguments": [dict(zip(("name", "shape", "meaning"), argument, strict=True)) for argument in needed(kind)],
    }

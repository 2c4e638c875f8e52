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
    seqs_option,
    spec_argument,
    target_option,
)
from attngen.cli.output import console, print_json, print_table, say
from attngen.report import layers
from attngen.report.decided import decided, telling_length
from attngen.report.quantities import digits, duration, quantity, share
from attngen.spec import Kind, Spec, load_spec
from attngen.target import Target

LINES = 20  # of a picture

Sizes = list[tuple[int, int, int]]  # (batch, queries, keys)


@click.command("explain")
@spec_argument
@kind_option
@seqs_option("long enough to show every window; the picture is of the first")
@batch_option
@target_option
@click.option("--png", type=click.Path(dir_okay=False), metavar="FILE", help="Draw the masks into FILE.")
@json_option
def command(
    path: str,
    kind: str | None,
    seqs: tuple[int, ...],
    batch: int | None,
    target: str | None,
    png: str | None,
    as_json: bool,
) -> None:
    """Show what a spec means: a picture of each mask, FLOPs, bytes, roofline, and the kernel's loops."""
    spec = load_spec(path)
    kinds = chosen_kinds(spec, kind)
    gpu = resolve_target(target)
    sizes = [(default_batch(seq, batch), seq, seq) for seq in seqs or (telling_length(spec),)]
    if png is not None:
        from attngen.report.plot import draw

        draw(spec, kinds, sizes[0][1], sizes[0][0], gpu, Path(png))
    if as_json:
        print_json({"name": spec.name, "kinds": [_values(spec, one, sizes, gpu) for one in kinds]})
        return
    for n, one in enumerate(kinds):
        if n:
            say()
        _print_kind(spec, one, sizes, gpu)
    if png is not None:
        say(f"\nwrote {png}")


def _print_kind(spec: Spec, kind: Kind, sizes: Sizes, target: Target) -> None:
    """A kind, or each of its branches, then what the branches cost together."""
    where = f"layers {layers.compressed(layers.layers_of(spec, kind.name))} of {spec.name}"
    if not kind.branches:
        _print_mask(kind, where, sizes, target)
        if kind.select is None:
            _print_arguments(kind)
            return
        say("\nthe least that a prefill takes, part by part, and dense attention, as above, beside it:")
        _print_costs(kind, sizes, target)
        return
    say(f"{kind.name}: {where}, in {len(kind.branches)} branches whose results are summed by gates", "bold")
    for branch in kind.branches:
        say()
        _print_mask(branch, f"a branch of {kind.name}", _sizes_of(branch, sizes), target)
    say("\nthe least that a prefill takes, part by part, and dense attention beside it:")
    _print_costs(kind, sizes, target)
    _print_arguments(kind)


def _sizes_of(branch: Kind, sizes: Sizes) -> Sizes:
    from attngen.plan.work import keys_of

    return [(batch, seq_q, keys_of(branch, seq_k)) for batch, seq_q, seq_k in sizes]


def _print_mask(kind: Kind, where: str, sizes: Sizes, target: Target) -> None:
    from attngen.plan import plan_forward
    from attngen.plan.space import why_not_hopper
    from attngen.plan.space.common import why_no_kernel
    from attngen.report.loops import loops_in_words
    from attngen.report.picture import framed, picture

    known, left_out = decided(kind)
    plan = plan_forward(known)
    out = console()
    say(f"{kind.name}: {where}", "bold")
    say(f"query i sees key j when {layers.sees(kind)}")
    if scores := layers.scores(kind):
        say(f"scores: {scores}")
    colour = out.color_system in ("256", "truecolor")
    drawing = picture(kind, *sizes[0][1:], 2 * LINES if colour else LINES)
    for line in framed(drawing, colour):
        out.print(line)
    if drawing.assumed:
        say(f"drawn as if: {', '.join(drawing.assumed)}")
    if kind.select is not None:
        say("drawn without the selection, which a call decides")
    if waiting := [name for name in left_out if name != "select"]:
        say(f"decided by each call: {', '.join(waiting)}; picture and figures are without", "yellow")
    say()
    _print_work(plan, *sizes[0], target)
    if len(sizes) > 1:
        say()
        _print_floors(plan, sizes, target)
    if kind.select is not None:
        return
    say("\nkeys that a tile of queries, first to last, goes over:")
    for sentence in loops_in_words(plan):
        say(f"  {sentence}")
    if why := why_no_kernel(plan, target):
        say(f"no kernel: {why}", "yellow")
    elif why := why_not_hopper(plan, target):
        say(f"hopper: {why}, so the portable schedule runs", "dim")


def _print_arguments(kind: Kind) -> None:
    from attngen.report.arguments import OPTIONAL, needed

    say(f"\narguments beside q, k, v ({layers.heads(kind)} heads, head_dim {layers.head_dim(kind)}, {kind.dtype}):")
    for name, shape, meaning in needed(kind):
        say(f"  {name}: {shape}, {meaning}")
    for name, shape, meaning in OPTIONAL:
        say(f"  {name}: optional, {shape}, {meaning}", "dim")


def _print_work(plan: Any, batch: int, seq_q: int, seq_k: int, target: Target) -> None:
    from attngen.report.work import floor_in_words, work_of

    work = work_of(plan, batch, seq_q, seq_k, target)
    say(
        f"batch {batch}, {seq_q} x {seq_k}: {work.pairs} of {work.all_pairs} pairs are visible "
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
    say(floor_in_words(work, target))


def _print_floors(plan: Any, sizes: Sizes, target: Target) -> None:
    """A line for each length: which limit it meets first, and when."""
    from attngen.report.work import work_of

    columns = ["B x S", "FLOP", "bytes", "FLOP/B", f"at least, {target.name}", "by"]
    rows = []
    for batch, seq_q, seq_k in sizes:
        work = work_of(plan, batch, seq_q, seq_k, target)
        rows.append(
            [
                f"{batch} x {seq_q}",
                quantity(work.flops, "FLOP"),
                quantity(work.bytes, "B"),
                digits(work.intensity),
                duration(work.floor_ms),
                work.bound,
            ]
        )
    print_table(columns, rows, right=columns[:5])


def _print_costs(kind: Kind, sizes: Sizes, target: Target) -> None:
    """A line for each length: the parts of sparse attention against dense attention."""
    from attngen.report.sparse import sparse_costs

    costs = sparse_costs(kind, [(batch, seq) for batch, seq, _ in sizes], target)
    columns = ["B x S", *costs[0].parts, "in all", "dense", "dense / sparse"]
    rows = [
        [
            f"{cost.batch} x {cost.seq}",
            *(duration(ms) if ms else "-" for ms in (*cost.parts.values(), cost.total_ms, cost.dense_ms)),
            f"{cost.dense_ms / cost.total_ms:.2f}",
        ]
        for cost in costs
    ]
    print_table(columns, rows, right=columns)


def _values(spec: Spec, kind: Kind, sizes: Sizes, target: Target) -> dict[str, Any]:
    from attngen.report.sparse import sparse_costs

    values = layers.kind_values(spec, kind)
    if kind.branches:
        branches = [{"name": one.name, **_mask_values(one, _sizes_of(one, sizes), target)} for one in kind.branches]
        values |= {"batch": sizes[0][0], "seq": sizes[0][1], "target": target.name, "branches": branches}
    else:
        values |= _mask_values(kind, sizes, target)
    if kind.branches or kind.select is not None:
        values["sparse"] = [cost.as_dict() for cost in sparse_costs(kind, [size[:2] for size in sizes], target)]
    return values


def _mask_values(kind: Kind, sizes: Sizes, target: Target) -> dict[str, Any]:
    from attngen.plan import plan_forward
    from attngen.report.arguments import needed
    from attngen.report.loops import loops_in_words
    from attngen.report.work import work_of

    known, left_out = decided(kind)
    plan = plan_forward(known)
    lengths = [
        {"batch": batch, "seq": seq_q, "work": work_of(plan, batch, seq_q, seq_k, target).as_dict()}
        for batch, seq_q, seq_k in sizes
    ]
    return {
        **lengths[0],
        "lengths": lengths,
        "target": target.name,
        "left_out": list(left_out),
        "loops": loops_in_words(plan),
        "arguments": [dict(zip(("name", "shape", "meaning"), argument, strict=True)) for argument in needed(kind)],
    }

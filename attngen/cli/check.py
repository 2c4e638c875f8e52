"""``attngen check``: is a spec right, and what does it say?"""

from __future__ import annotations

from typing import Any

import click

from attngen.cli.options import json_option, spec_argument
from attngen.cli.output import print_json, print_table, say
from attngen.errors import NotGeneratedError
from attngen.report import layers
from attngen.spec import Kind, Spec, load_spec


@click.command("check")
@spec_argument
@json_option
def command(path: str, as_json: bool) -> None:
    """Validate a spec; print its layers and what each kind sees."""
    spec = load_spec(path)
    waiting = {kind.name: reason for kind in spec.kinds if (reason := not_generated(kind))}
    if as_json:
        print_json(spec_values(spec, waiting))
        return
    print_spec(spec)
    for reason in waiting.values():
        say(f"note: {reason}", "yellow")


def not_generated(kind: Kind) -> str:
    """Why no kernel can be made of a valid kind yet, or nothing."""
    from attngen.plan.kernels import plans_of
    from attngen.target import get_target

    try:
        plans_of(kind, get_target("h100"))
    except NotGeneratedError as error:
        return str(error).split(";")[0]
    return ""


def spec_values(spec: Spec, waiting: dict[str, str]) -> dict[str, Any]:
    kinds = [layers.kind_values(spec, kind) | {"generated": kind.name not in waiting} for kind in spec.kinds]
    return {"name": spec.name, "source": spec.source, "layers": list(spec.layer_kinds), "kinds": kinds}


def print_spec(spec: Spec) -> None:
    """The kinds, their layers, and what each sees."""
    from attngen.report.arguments import needed

    say(f"{spec.name}: {layers.counted(spec.layers, 'layer')}, {layers.counted(len(spec.kinds), 'kind')}", "bold")
    say()
    columns = [
        "kind",
        "layers",
        "query i sees key j when",
        "scores",
        "heads",
        "head_dim",
        "dtype",
        "arguments",
    ]
    rows = [
        [
            kind.name,
            f"{layers.compressed(of_kind)} ({len(of_kind)})" if len(of_kind) > 2 else layers.compressed(of_kind),
            layers.sees(kind),
            layers.scores(kind),
            layers.heads(kind),
            layers.head_dim(kind),
            kind.dtype,
            ", ".join(name for name, _, _ in needed(kind)),
        ]
        for kind in spec.kinds
        for of_kind in [layers.layers_of(spec, kind.name)]
    ]
    used = [n for n in range(len(columns)) if any(row[n] for row in rows)]
    columns, rows = [columns[n] for n in used], [[row[n] for n in used] for row in rows]
    print_table(columns, rows, right=["heads", "head_dim"], wide=["layers", columns[2], "scores", "arguments"])
    if external := layers.external_layers(spec):
        say(f"layers {layers.compressed(external)} are not attention: nothing is generated for them")

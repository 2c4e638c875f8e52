"""The files of a generated package, as text: all is decided and rendered before anything is written."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import jinja2

import attngen
from attngen.database import Database
from attngen.errors import UsageError
from attngen.package.configs import config_table
from attngen.package.names import exports_key, function_names
from attngen.package.op import Op, make_op
from attngen.plan import plan_forward
from attngen.plan.hopper import VISITS
from attngen.resources import resource_dir
from attngen.source.text import LINE_LENGTH, call
from attngen.spec import EXTERNAL, Spec, dump_spec
from attngen.target import Target

MANIFEST = "generated.json"  # says that a folder is a generated package, and which files are ours


def package_files(spec: Spec, package: str, *, target: Target, db: Database | str | None = None) -> dict[str, str]:
    """Name and text of every file of the package called ``package``.

    Raises NotGeneratedError when a kind's kernels do not exist yet.
    """
    if not spec.kinds or all(kind == EXTERNAL for kind in spec.layer_kinds):
        raise UsageError(f"'{spec.name}' has no layer that is attention; there is nothing to generate")
    plans = {kind.name: plan_forward(kind) for kind in spec.kinds}
    functions = function_names(plans)
    ops = [make_op(plan, functions[name], config_table(plan, target, db)) for name, plan in plans.items()]
    ways = {variant.loads for op in ops for variant in op.variants}
    descriptors, gluon = "descriptor" in ways, "gluon" in ways
    shapes = {argument.shape for plan in plans.values() for argument in plan.arguments}
    scales = any(kind.quantised for kind in spec.kinds)
    files = {
        "__init__.py": _render("init.py.j2", spec=spec, target=target, ops=ops, **_layers(spec, functions)),
        "_common.py": _render(
            "common.py.j2",
            descriptors=descriptors,
            gluon=gluon,
            scales=scales,
            visits=VISITS,
            named_tensors="tensor" in shapes,
            named_numbers="scalar" in shapes,
        ),
    }
    for op in ops:
        for variant in op.variants:
            files[f"{variant.module}.py"] = variant.source.text
        files[f"{op.function}.py"] = _render(
            "op.py.j2",
            spec=spec,
            package_descriptors=descriptors,
            package_gluon=gluon,
            package_scales=scales,
            **vars(op),
        )
    files["README.md"] = _render(
        "README.md.j2",
        package=package,
        version=attngen.__version__,
        spec=spec,
        target=target,
        ops=[(op, _layer_list(spec, op)) for op in ops],
        first=ops[0],
        gluon=gluon,
        by_layer=_by_layer(spec, ops),
        yaml=dump_spec(spec),
    )
    files[MANIFEST] = _manifest(spec, target, ops, [*files, MANIFEST])
    return files


def _layers(spec: Spec, functions: dict[str, str]) -> dict[str, Any]:
    """The list of layers as an expression: one turn of the pattern where it repeats."""
    names = [functions.get(kind, "None") for kind in spec.layer_kinds]
    turn = next(n for n in range(1, len(names) + 1) if all(name == names[i % n] for i, name in enumerate(names)))
    repeats, rest = divmod(len(names), turn)
    one = ", ".join(names[:turn])
    if len(one) > LINE_LENGTH // 2:
        layers = "[\n" + "".join(f"    {name},\n" for name in names) + "]"
    elif turn == len(names):
        layers = f"[{one}]"
    else:
        layers = f"([{one}] * {repeats + 1})[:{len(names)}]" if rest else f"[{one}] * {repeats}"
    exports = sorted(["LAYERS", "attention", *functions.values()], key=exports_key)
    return {"layers": layers, "external": "None" in names, "exports": ", ".join(f'"{name}"' for name in exports)}


def _layer_list(spec: Spec, op: Op) -> str:
    """``0, 3, 6 and 5 more``."""
    numbers = [str(layer) for layer, kind in enumerate(spec.layer_kinds) if kind == op.kind.name]
    if len(numbers) == len(spec.layer_kinds):
        return f"all {len(numbers)}"
    shown = ", ".join(numbers[:6])
    return f"{shown} and {len(numbers) - 6} more" if len(numbers) > 6 else shown


def _by_layer(spec: Spec, ops: list[Op]) -> list[str]:
    """The arguments of an example call of the first layer that is attention."""
    layer, name = next((i, kind) for i, kind in enumerate(spec.layer_kinds) if kind != EXTERNAL)
    op = next(op for op in ops if op.kind.name == name)
    return [*op.usage[:3], f"layer={layer}", *op.usage[3:]]


def _manifest(spec: Spec, target: Target, ops: list[Op], files: list[str]) -> str:
    """What made the package, for programs."""
    content = {
        "generator": "attngen",
        "version": attngen.__version__,
        "spec": spec.name,
        "target": target.name,
        "kinds": {op.function: op.kind.digest() for op in ops},
        "files": sorted(files),
    }
    return json.dumps(content, indent=2) + "\n"


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_dir("templates") / "package"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.globals["call"] = call
    return environment


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)

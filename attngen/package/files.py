"""The files of a generated package, as text: all is decided and rendered before anything is written."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2

import attngen
from attngen.database import Database
from attngen.errors import UsageError
from attngen.op import shares
from attngen.package.configs import config_table
from attngen.package.names import exports_key, function_names
from attngen.package.op import Op, make_op
from attngen.package.sparse import SparseOp, make_sparse_op
from attngen.plan import plan_forward
from attngen.plan.forward import run_time_arguments
from attngen.plan.hopper import VISITS
from attngen.plan.kernels import selects_keys
from attngen.resources import resource_dir
from attngen.source.text import LINE_LENGTH, call
from attngen.spec import EXTERNAL, Kind, Spec, dump_spec
from attngen.target import Target

MANIFEST = "generated.json"  # says that a folder is a generated package, and which files are ours


def package_files(spec: Spec, package: str, *, target: Target, db: Database | str | None = None) -> dict[str, str]:
    """Name and text of every file of the package called ``package``.

    Raises NotGeneratedError when a kind's kernels do not exist yet.
    """
    if not spec.kinds or all(kind == EXTERNAL for kind in spec.layer_kinds):
        raise UsageError(f"'{spec.name}' has no layer that is attention; there is nothing to generate")
    functions = function_names(kind.name for kind in spec.kinds)
    ops = [_op(kind, functions[kind.name], target, db) for kind in spec.kinds]
    selecting = [op for op in ops if isinstance(op, SparseOp)]
    forward = [op for op in ops if isinstance(op, Op)] + [op.whole for op in selecting if op.whole is not None]
    ways = {variant.loads for op in forward for variant in op.variants}
    shared = {
        "descriptors": "descriptor" in ways,
        "gluon": "gluon" in ways,
        "selecting_gluon": any(op.gluon for op in selecting),
        "scales": any(kind.quantised for kind in spec.kinds),
    }
    shapes = {argument.shape for kind in spec.kinds for argument in run_time_arguments(kind)}
    files = {
        "__init__.py": _render("init.py.j2", spec=spec, target=target, ops=ops, **_layers(spec, functions)),
        "_common.py": _render(
            "common.py.j2",
            forward=bool(forward),
            hopper=shared["gluon"] or shared["selecting_gluon"],
            visits=VISITS,
            named_tensors="tensor" in shapes,
            named_numbers="scalar" in shapes,
            **shared,
        ),
    }
    if selecting:
        indexed = any(op.indexer for op in selecting)
        narrows = any(op.narrows for op in selecting)
        files["_selecting.py"] = _render("selecting.py.j2", indexed=indexed, narrows=narrows, **shared)
        if indexed:
            files["_shares.py"] = Path(shares.__file__).read_text(encoding="utf-8")
    for dense in forward:
        private = "" if dense in ops else "_"
        files[f"{private}{dense.function}.py"] = _render("op.py.j2", spec=spec, **shared, **vars(dense))
    for op in selecting:
        files[f"{op.function}.py"] = _render("sparse.py.j2", spec=spec, op=op, **shared)
    variants = [v for dense in forward for v in dense.variants] + [v for op in selecting for v in op.variants]
    files |= {f"{variant.module}.py": variant.source.text for variant in variants}
    files["README.md"] = _render(
        "README.md.j2",
        package=package,
        version=attngen.__version__,
        spec=spec,
        target=target,
        ops=[(op, _layer_list(spec, op)) for op in ops],
        first=ops[0],
        selecting=selecting,
        by_layer=_by_layer(spec, ops),
        yaml=dump_spec(spec),
        **shared,
    )
    files[MANIFEST] = _manifest(spec, target, ops, [*files, MANIFEST])
    return files


def _op(kind: Kind, function: str, target: Target, db: Database | str | None) -> Op | SparseOp:
    if selects_keys(kind):
        return make_sparse_op(kind, function, target, db)
    plan = plan_forward(kind)
    return make_op(plan, function, config_table(plan, target, db))


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


def _layer_list(spec: Spec, op: Op | SparseOp) -> str:
    """``0, 3, 6 and 5 more``."""
    numbers = [str(layer) for layer, kind in enumerate(spec.layer_kinds) if kind == op.kind.name]
    if len(numbers) == len(spec.layer_kinds):
        return f"all {len(numbers)}"
    shown = ", ".join(numbers[:6])
    return f"{shown} and {len(numbers) - 6} more" if len(numbers) > 6 else shown


def _by_layer(spec: Spec, ops: list[Op | SparseOp]) -> list[str]:
    """The arguments of an example call of the first layer that is attention."""
    layer, name = next((i, kind) for i, kind in enumerate(spec.layer_kinds) if kind != EXTERNAL)
    op = next(op for op in ops if op.kind.name == name)
    keywords = next((n for n, argument in enumerate(op.usage) if "=" in argument), len(op.usage))
    return [*op.usage[:keywords], f"layer={layer}", *op.usage[keywords:]]


def _manifest(spec: Spec, target: Target, ops: list[Op | SparseOp], files: list[str]) -> str:
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

"""The files of a generated package, as text: all is decided and rendered before anything is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2

import attngen
from attngen.database import Database
from attngen.errors import NotGeneratedError, UsageError
from attngen.op import compressed, gates, indexer_items, key_blocks, parts
from attngen.package.blocks import BlockOp, make_block_op
from attngen.package.branches import BranchedOp, make_branched_op
from attngen.package.configs import config_table
from attngen.package.names import exports_key, function_names
from attngen.package.op import Op, make_op
from attngen.package.selecting import SelectingOp
from attngen.package.sparse import SparseOp, make_sparse_op
from attngen.plan import plan_forward
from attngen.plan.attention import run_time_arguments
from attngen.plan.hopper import VISITS
from attngen.plan.kernels import selects_keys
from attngen.plan.listed import selects_blocks
from attngen.resources import resource_dir
from attngen.source.text import LINE_LENGTH, call
from attngen.spec import EXTERNAL, Kind, Spec, dump_spec
from attngen.target import Target

AnyOp = Op | SparseOp | BlockOp | BranchedOp
TEMPLATES = {SparseOp: "sparse.py.j2", BlockOp: "blocks.py.j2", BranchedOp: "branches.py.j2"}
MANIFEST = "generated.json"  # says that a folder is a generated package, and which files are ours


def package_files(spec: Spec, package: str, *, target: Target, db: Database | str | None = None) -> dict[str, str]:
    """Name and text of every file of the package called ``package``.

    Raises NotGeneratedError when a kind's kernels do not exist yet.
    """
    if not spec.kinds or all(kind == EXTERNAL for kind in spec.layer_kinds):
        raise UsageError(f"'{spec.name}' has no layer that is attention; there is nothing to generate")
    functions = function_names(kind.name for kind in spec.kinds)
    ops: list[AnyOp] = []
    branches: list[Op | BlockOp] = []
    for kind in spec.kinds:
        made = _op(kind, functions[kind.name], target, db, [*functions.values(), *(op.function for op in branches)])
        ops.append(made)
        branches += [op for op, _ in _branch_rows([made])]
    every = [*ops, *branches]
    selecting = [op for op in every if isinstance(op, SelectingOp)]
    forward = [op for op in every if isinstance(op, Op)] + [op.whole for op in selecting if op.whole is not None]
    shared = _shared(selecting, forward)
    files = {
        "__init__.py": _render("init.py.j2", spec=spec, target=target, ops=every, **_layers(spec, functions, branches)),
        "_common.py": _render("common.py.j2", **shared, **_of_common(every, bool(forward))),
    }
    if selecting:
        files["_selecting.py"] = _render("selecting.py.j2", **shared, **_of_selecting(selecting))
    files |= {f"{name}.py": _text(module) for name, module in _modules(every).items()}
    for dense in forward:
        private = "" if dense in every else "_"
        files[f"{private}{dense.function}.py"] = _render("op.py.j2", spec=spec, **shared, **vars(dense))
    for op in every:
        if not isinstance(op, Op):
            files[f"{op.function}.py"] = _render(TEMPLATES[type(op)], spec=spec, op=op, **shared)
    variants = [v for dense in forward for v in dense.variants] + [v for op in selecting for v in op.variants]
    files |= {f"{variant.module}.py": variant.source.text for variant in variants}
    for op in selecting:
        if isinstance(op, BlockOp):
            files |= {f"{module}.py": source.text for module, source in op.routing.items()}
    files["README.md"] = _render(
        "README.md.j2",
        package=package,
        version=attngen.__version__,
        spec=spec,
        target=target,
        ops=ops,
        rows=[*((op, _where(spec, op)) for op in ops), *_branch_rows(ops)],
        first=ops[0],
        noted=[op for op in every if not isinstance(op, Op)],
        by_layer=_by_layer(spec, ops),
        yaml=dump_spec(spec),
        **shared,
    )
    files[MANIFEST] = _manifest(spec, target, ops, [*files, MANIFEST])
    return files


def _op(kind: Kind, function: str, target: Target, db: Database | str | None, given: list[str]) -> AnyOp:
    """The op of ``kind``, called ``function``; ops of branches are called otherwise than those ``given``."""
    if kind.branches:
        return make_branched_op(kind, function, target, db, given)
    if selects_keys(kind):
        return make_sparse_op(kind, function, target, db)
    if selects_blocks(kind):
        return make_block_op(kind, function, target, db)
    plan = plan_forward(kind)
    for field in ("documents", "blocks"):
        if getattr(kind, field):
            raise NotGeneratedError(
                f"kind '{kind.name}': '{field}' is not generated as a package; attngen.load() has it"
            )
    return make_op(plan, function, config_table(plan, target, db))


def _shared(selecting: Sequence[SelectingOp], forward: Sequence[Op]) -> dict[str, bool]:
    """What all templates are told: what some module of the package does."""
    ways = {variant.loads for op in forward for variant in op.variants}
    return {
        "descriptors": "descriptor" in ways,
        "routed_descriptors": any(isinstance(op, BlockOp) and True in op.described for op in selecting),
        "gluon": "gluon" in ways,
        "selecting_gluon": any(op.gluon for op in selecting),
        "scales": any(op.kind.quantised for op in forward),
    }


def _of_common(every: list[AnyOp], forward: bool) -> dict[str, Any]:
    """What the module that all ops share is told besides; ``forward``: whether some attend to every key."""
    shapes = {argument.shape for op in every for argument in run_time_arguments(op.kind)}
    return {
        "forward": forward,
        "visits": VISITS,
        "named_tensors": "tensor" in shapes,
        "named_numbers": "scalar" in shapes,
    }


def _of_selecting(selecting: Sequence[SelectingOp]) -> dict[str, Any]:
    """What the module that ops with a selection share is told besides."""
    sparse = [op for op in selecting if isinstance(op, SparseOp)]
    return {
        "ways": {table.type for op in selecting for table in op.tables},
        "listed": bool(sparse),
        "indexed": any(op.indexer for op in sparse),
        "narrows": any(op.narrows for op in sparse),
    }


def _modules(every: list[AnyOp]) -> dict[str, ModuleType]:
    """Modules of attngen's own ops, of plain torch, that ops of the package import as they are."""
    made = {}
    if any(isinstance(op, SparseOp) and op.indexer for op in every):
        made["_indexer_items"] = indexer_items
    if any(isinstance(op, BlockOp) for op in every):
        made["_key_blocks"] = key_blocks
    if any(isinstance(op, BlockOp) and op.routed for op in every):
        made["_parts"] = parts
    if any(isinstance(op, BranchedOp) for op in every):
        made["_gates"] = gates
    if any(isinstance(op, BranchedOp) and op.compresses for op in every):
        made["_compressed"] = compressed
    return made


def _text(module: ModuleType) -> str:
    assert module.__file__ is not None
    return Path(module.__file__).read_text(encoding="utf-8")


def _layers(spec: Spec, functions: dict[str, str], branches: list[Op | BlockOp]) -> dict[str, Any]:
    """The list of layers as an expression: one turn of the pattern where it repeats, or runs of equal layers."""
    names = [functions.get(kind, "None") for kind in spec.layer_kinds]
    turn = next(n for n in range(1, len(names) + 1) if all(name == names[i % n] for i, name in enumerate(names)))
    repeats, rest = divmod(len(names), turn)
    one = ", ".join(names[:turn])
    runs = [(name, len(list(run))) for name, run in groupby(names)]
    by_run = " + ".join(f"[{name}] * {count}" if count > 1 else f"[{name}]" for name, count in runs)
    if turn == len(names) and len(by_run) < len(one) / 2 and len(by_run) <= LINE_LENGTH - len("LAYERS = "):
        layers = by_run
    elif len(one) > LINE_LENGTH // 2:
        layers = "[\n" + "".join(f"    {name},\n" for name in names) + "]"
    elif turn == len(names):
        layers = f"[{one}]"
    else:
        layers = f"([{one}] * {repeats + 1})[:{len(names)}]" if rest else f"[{one}] * {repeats}"
    exports = sorted(["LAYERS", "attention", *functions.values(), *(op.function for op in branches)], key=exports_key)
    return {"layers": layers, "external": "None" in names, "exports": exports}


def _where(spec: Spec, op: AnyOp) -> str:
    """The layers of an op: ``0, 3, 6 and 5 more``."""
    numbers = [str(layer) for layer, kind in enumerate(spec.layer_kinds) if kind == op.kind.name]
    if len(numbers) == len(spec.layer_kinds):
        return f"all {len(numbers)}"
    shown = ", ".join(numbers[:6])
    return f"{shown} and {len(numbers) - 6} more" if len(numbers) > 6 else shown


def _branch_rows(ops: list[AnyOp]) -> list[tuple[Op | BlockOp, str]]:
    """Ops of branches, and in the place of layers whose they are."""
    branched = [op for op in ops if isinstance(op, BranchedOp)]
    return [(branch.op, f"in `{op.function}`") for op in branched for branch in op.branches]


def _by_layer(spec: Spec, ops: list[AnyOp]) -> list[str]:
    """The arguments of an example call of the first layer that is attention."""
    layer, name = next((i, kind) for i, kind in enumerate(spec.layer_kinds) if kind != EXTERNAL)
    op = next(op for op in ops if op.kind.name == name)
    keywords = next((n for n, argument in enumerate(op.usage) if "=" in argument), len(op.usage))
    return [*op.usage[:keywords], f"layer={layer}", *op.usage[keywords:]]


def _manifest(spec: Spec, target: Target, ops: list[AnyOp], files: list[str]) -> str:
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

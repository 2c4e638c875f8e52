"""What the module of one op says: its configs, its keywords, its checks, and the arguments of its launch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from attngen.config import Value
from attngen.package.configs import Row
from attngen.package.names import natural_key
from attngen.package.variants import Variant, variants_of
from attngen.plan import ForwardPlan
from attngen.plan.forward import Argument
from attngen.spec.describe import describe_kind, describe_mask, describe_score
from attngen.spec.model import Kind

WIDTH = 116  # of a wrapped line in a docstring or comment
OPTION_COMMENTS = {
    "BLOCK_M": "rows of a tile",
    "BLOCK_N": "keys of a tile",
    "HEADS_TOGETHER": "heads whose tiles run side by side and share the L2 cache",
    "num_stages": "key tiles in flight",
}


@dataclass(frozen=True)
class Option:
    """One compile-time parameter of a launch."""

    name: str
    value: str
    comment: str


@dataclass(frozen=True)
class TableRow:
    """One row of an op's table of configs."""

    longest: int | None
    alias: str
    queries: int
    heads: int
    keys: int
    options: tuple[Option, ...]
    comment: tuple[str, ...]
    label: str
    provenance: str


@dataclass(frozen=True)
class Op:
    """Everything that the template of an op's module refers to."""

    kind: Kind
    function: str
    description: str
    seen: str  # which keys, for a table
    contents: str  # one entry of the package's table of contents
    documentation: tuple[str, ...]
    signature: tuple[str, ...]
    checks: tuple[str, ...]
    variants: tuple[Variant, ...]
    rows: tuple[TableRow, ...]
    arguments: tuple[str, ...]  # of the launch
    descriptors: tuple[tuple[str, str], ...]  # names and values, where some config has them
    mixed: str  # the condition that tells configs with descriptors, where there are others too
    usage: tuple[str, ...]  # the arguments of a call, for an example

    @property
    def sort_key(self) -> list:
        return natural_key(self.function)


def make_op(plan: ForwardPlan, function: str, table: tuple[Row, ...]) -> Op:
    """The op of ``plan``, called ``function``, with its table of configs."""
    kind = plan.kind
    by_config = variants_of(plan, function, [row.config for row in table])
    variants = tuple(sorted(set(by_config.values()), key=lambda variant: natural_key(variant.module)))
    described = [variant.alias for variant in variants if variant.descriptors]
    mixed = bool(described) and len(described) < len(variants)
    return Op(
        kind=kind,
        function=function,
        description=_wrapped(f"{'; '.join(describe_kind(kind)[1:])}."),
        seen=describe_mask(kind).removeprefix("sees ").replace("|", "\\|"),
        contents="\n".join(textwrap.wrap(f"{function}: {describe_mask(kind)}", WIDTH, subsequent_indent="    ")),
        documentation=_documentation(plan),
        signature=_signature(plan),
        checks=tuple(_checks(plan, function)),
        variants=variants,
        rows=tuple(_table_row(row, by_config[row.config], kind) for row in table),
        arguments=_arguments(plan, variants[0], mixed),
        descriptors=_descriptors(plan) if described else (),
        mixed=f"in ({', '.join(described)})" if len(described) > 1 else f"is {described[0]}" if mixed else "",
        usage=("q", "k", "v", *(f"{name}={name}" for name in _keywords(plan))),
    )


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, WIDTH))


def _table_row(row: Row, variant: Variant, kind: Kind) -> TableRow:
    config = row.config
    block_m, pack = int(config["BLOCK_M"] or 0), int(config.get("PACK_HEADS") or 1)
    window = config["schedule"] == "window"  # whose programs go over every head of a group
    names = [*variant.source.constexprs, "num_warps", "num_stages", "maxnreg"]
    where = f"Up to {row.longest}" if row.longest else "Any length"
    return TableRow(
        longest=row.longest,
        alias=variant.alias,
        queries=block_m if window else block_m // pack,
        heads=kind.heads.group if window else pack,
        keys=int(config["BLOCK_N"] or 0),
        options=tuple(_option(name, config[name]) for name in names if config.get(name) is not None),
        comment=tuple(textwrap.wrap(f"{where}: {row.provenance}.", WIDTH - 6)),
        label=config.label(),
        provenance=row.provenance,
    )


def _option(name: str, value: Value) -> Option:
    return Option(name, repr(value), OPTION_COMMENTS.get(name, ""))


def _keywords(plan: ForwardPlan) -> list[str]:
    return [argument.name for argument in plan.arguments]


def _signature(plan: ForwardPlan) -> tuple[str, ...]:
    return ("q", "k", "v", "*", *_keywords(plan), "offsets=None", "key_range=None", "return_lse=False")


def _checks(plan: ForwardPlan, function: str) -> Iterable[str]:
    """Statements that check, and make contiguous, what comes beside q, k and v."""
    sizes = {"heads": "(_SHAPE.heads,)", "batch": "(q.shape[0],)", "range": "(q.shape[0], 2)"}
    always = (Argument("offsets", "batch", 1, ""), Argument("key_range", "batch", 2, ""))
    for argument in (*plan.arguments, *always):
        name = argument.name
        if argument.shape == "tensor":
            yield f'_common.check_indexed("{function}", "{name}", {name}, {argument.rank}, q)'
        elif argument.shape == "scalar":
            yield f'{name} = _common.check_number("{function}", "{name}", {name})'
        else:
            size = sizes["range" if argument.rank == 2 else argument.shape]
            whole = ", integers=True" if argument.shape == "batch" else ""
            check = f'{name} = _common.check_vector("{function}", "{name}", {name}, {size}, q{whole})'
            yield from (f"if {name} is not None:", f"    {check}") if argument in always else (check,)


def _arguments(plan: ForwardPlan, variant: Variant, mixed: bool) -> tuple[str, ...]:
    """The keywords of the launch, in the order of the kernel's parameters; ``kv`` stands for those that vary."""
    values = {f"{name}_ptr": name for name in ("q", "k", "v", "out", "lse", "offsets", "key_range")}
    values |= {"heads": "q.shape[1]", "seq_q": "q.shape[2]", "seq_k": "k.shape[2]"}
    values |= dict(_descriptors(plan))
    for argument in plan.arguments:
        name = argument.name
        values |= {f"{name}_ptr": name, f"{name}_value": name}
        for n in range(argument.rank):
            values |= {f"{name}_size_{n}": f"{name}.shape[{n}]", f"{name}_stride_{n}": f"{name}.stride({n})"}
    varying = {"k_ptr", "v_ptr", *dict(_descriptors(plan))} if mixed else set()
    strided = dict.fromkeys(name[7] for name in variant.source.parameters if name.startswith("stride_"))
    letters = [letter for letter in strided if not (mixed and letter in "kv")]
    tensors = ", ".join(f"{letter}={'out' if letter == 'o' else letter}" for letter in letters)
    out = []
    for name in variant.source.parameters:
        if name in varying:
            text = "**kv"
        elif name.startswith("stride_"):
            text = f"**_common.strides({tensors})"
        else:
            text = f"{name}={values[name]}"
        if text not in out:
            out.append(text)
    return (*out, "**config.options")


def _descriptors(plan: ForwardPlan) -> tuple[tuple[str, str], ...]:
    """The arguments of kernels that fetch keys and values by descriptor."""
    return tuple(
        (f"{name}_desc_{chunk.index}", f"_common.describe({name}, config.keys, {chunk.width})")
        for name, chunks in (("k", plan.qk_chunks), ("v", plan.v_chunks))
        for chunk in chunks
    )


def _documentation(plan: ForwardPlan) -> tuple[str, ...]:
    """The rest of the op's docstring."""
    kind, heads, dim = plan.kind, plan.kind.heads, plan.kind.head_dim
    base = ", without the sink" if kind.sink else ""
    shapes = (
        f"q: (batch, {heads.query}, seq_q, {dim.qk}). k: (batch, {heads.kv}, seq_k, {dim.qk}). "
        f"v: (batch, {heads.kv}, seq_k, {dim.v}). All {kind.dtype}, any strides but a unit last one."
    )
    seen = f"A query at position i {describe_mask(kind)}"
    seen = seen.replace(" sees ", " sees the keys j with ", 1) if "every key" not in seen else seen
    paragraphs = [f"{seen}. Scores: {', '.join(describe_score(kind))}.", "", shapes]
    paragraphs += [f"{argument.name}: {_form(argument)}{argument.meaning}." for argument in plan.arguments]
    paragraphs += [
        "offsets: (batch,) position of each sequence's first query; seq_k - seq_q when left out.",
        "key_range: (batch, 2) first and end of each sequence's valid keys; all of them when left out.",
        f"Returns out (batch, {heads.query}, seq_q, {dim.v}), laid out like q, and with return_lse also lse (batch, "
        f"{heads.query}, seq_q), float32, natural log{base}. A query that sees no key gets 0 and -inf.",
    ]
    return tuple(line for paragraph in paragraphs for line in textwrap.wrap(paragraph, WIDTH) or [""])


def _form(argument: Argument) -> str:
    match argument.shape:
        case "heads" | "batch":
            return f"({argument.shape},) "
        case "tensor":
            return f"{argument.rank} dimensions, "
    return ""

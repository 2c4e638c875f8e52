"""What the module of one op says: its configs, its keywords, its checks, and the arguments of its launch."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from attngen.config import Config, Value
from attngen.package.checks import checks_of
from attngen.package.configs import Row
from attngen.package.names import natural_key
from attngen.package.variants import Variant, variants_of
from attngen.package.words import WIDTH, described, placed, returned, seen_and_scored, tensors, wrapped, wrapped_lines
from attngen.plan import ForwardPlan
from attngen.plan.attention import Argument
from attngen.plan.boxes import is_gluon, query_box
from attngen.plan.hopper_window import HopperWindowShape
from attngen.spec.model import Kind

COUNTERS = ("tile_count", "heads_together", "ticket_ptr")  # parameters of some kernels, however tensors come
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
class Tuning:
    """One row of the package's table of configs: whose, how long a sequence may be, and where it comes from."""

    title: str
    longest: int | None
    label: str
    provenance: str


@dataclass(frozen=True)
class TableRow:
    """One row of an op's table of configs."""

    longest: int | None
    alias: str
    queries: int
    heads: int
    keys: int
    box: tuple[int, int] | None  # heads and queries that a warpgroup loads; None where Triton loads
    together: int
    persistent: bool
    options: tuple[Option, ...]
    comment: tuple[str, ...]
    label: str
    provenance: str


@dataclass(frozen=True)
class Loads:
    """One way in which tensors come to kernels, and what only those kernels are given."""

    how: str  # pointer, descriptor or gluon
    kernels: str  # ``is _kernel`` or ``in (_kernel_a, _kernel_b)``
    arguments: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Op:
    """Everything that the template of an op's module refers to."""

    kind: Kind
    function: str
    note: str  # of what else it is for
    description: str
    seen: str  # which keys, for a table
    contents: str  # one entry of the package's table of contents
    documentation: tuple[str, ...]
    signature: tuple[str, ...]
    checks: tuple[str, ...]
    variants: tuple[Variant, ...]
    rows: tuple[TableRow, ...]
    arguments: tuple[str, ...]  # of the launch
    loads: tuple[Loads, ...]  # ways in which tensors come, where there are several or by descriptor
    usage: tuple[str, ...]  # the arguments of a call, for an example

    @property
    def sort_key(self) -> list:
        return natural_key(self.function)

    @property
    def tunings(self) -> tuple[Tuning, ...]:
        return tuple(Tuning(self.function, row.longest, row.label, row.provenance) for row in self.rows)


def make_op(plan: ForwardPlan, function: str, table: tuple[Row, ...], note: str = "") -> Op:
    """The op of ``plan``, called ``function``, with its table of configs."""
    kind = plan.kind
    by_config = variants_of(plan, function, [row.config for row in table])
    variants = tuple(sorted(set(by_config.values()), key=lambda variant: natural_key(variant.module)))
    loads = _loads(plan, variants)
    return Op(
        kind=kind,
        function=function,
        note=wrapped(note),
        **described(kind, function),
        documentation=_documentation(plan),
        signature=_signature(plan),
        checks=tuple(checks_of(function, plan.arguments, needed=_needed(plan), reads=kind.read_by_symbol)),
        variants=variants,
        rows=tuple(_table_row(row, by_config[row.config], plan) for row in table),
        arguments=_arguments(plan, variants, loads),
        loads=loads,
        usage=("q", "k", "v", *(f"{name}={name}" for name in (*_keywords(plan), *_needed(plan)))),
    )


def _table_row(row: Row, variant: Variant, plan: ForwardPlan) -> TableRow:
    config = row.config
    queries, heads = _tile(config, plan)
    options = {name: config[name] for name in variant.source.constexprs} | variant.source.options
    where = f"Up to {row.longest}" if row.longest else "Any length"
    return TableRow(
        longest=row.longest,
        alias=variant.alias,
        queries=queries,
        heads=heads,
        keys=int(config["BLOCK_N"] or 0),
        box=query_box(plan, config) if is_gluon(config) else None,
        together=int(config.get("HEADS_TOGETHER") or 1) if "tile_count" in variant.source.parameters else 0,
        persistent="ticket_ptr" in variant.source.parameters,
        options=tuple(_option(name, value) for name, value in options.items()),
        comment=tuple(textwrap.wrap(f"{where}: {row.provenance}.", WIDTH - 6)),
        label=config.label(),
        provenance=row.provenance,
    )


def _tile(config: Config, plan: ForwardPlan) -> tuple[int, int]:
    """Queries and heads of a program."""
    group = plan.kind.heads.group
    if config["schedule"] == "hopper_window":
        return HopperWindowShape.of(plan, config).block_q, group
    block_m, pack = int(config["BLOCK_M"] or 0), int(config.get("PACK_HEADS") or 1)
    if config["schedule"] == "window":  # whose programs go over every head of a group
        return block_m, group
    return block_m // pack, pack


def _option(name: str, value: Value) -> Option:
    return Option(name, repr(value), OPTION_COMMENTS.get(name, ""))


def _keywords(plan: ForwardPlan) -> list[str]:
    return [argument.name for argument in plan.arguments]


def _needed(plan: ForwardPlan) -> tuple[str, ...]:
    """What else must be given: compressed keys do not say at which positions queries are."""
    return () if plan.kind.compress is None else ("offsets",)


def _signature(plan: ForwardPlan) -> tuple[str, ...]:
    offsets = "offsets" if _needed(plan) else "offsets=None"
    return ("q", "k", "v", "*", *_keywords(plan), offsets, "key_range=None", "return_lse=False")


def _values(plan: ForwardPlan, how: str) -> dict[str, str]:
    """What each parameter of a kernel is given, as an expression."""
    values = {f"{name}_ptr": name for name in ("q", "k", "v", "out", "lse", "offsets", "key_range")}
    values |= {"heads": "q.shape[1]", "seq_q": "q.shape[2]", "seq_k": "k.shape[2]"}
    for name, chunks in (("q", plan.qk_chunks), ("k", plan.qk_chunks), ("v", plan.v_chunks), ("out", plan.v_chunks)):
        rows = "*config.box" if name in ("q", "out") else "1, config.keys"
        for c in chunks:
            by_triton, by_gluon = (
                f"describe({name}, config.keys, {c.width})",
                f"describe_box({name}, 1, {rows}, {c.width})",
            )
            values[f"{name}_desc_{c.index}"] = f"_common.{by_gluon if how == 'gluon' else by_triton}"
    for argument in plan.arguments:
        name = argument.name
        values |= {f"{name}_ptr": name, f"{name}_value": name, f"{name}_stride": f"int({name}.numel() > 1)"}
        for n in range(argument.rank):
            values |= {f"{name}_size_{n}": f"{name}.shape[{n}]", f"{name}_stride_{n}": f"{name}.stride({n})"}
    return values


def _loads(plan: ForwardPlan, variants: Sequence[Variant]) -> tuple[Loads, ...]:
    """The ways in which tensors come, those with most conditions first."""
    out = []
    for how in ("gluon", "descriptor", "pointer"):
        those = [variant for variant in variants if variant.loads == how]
        if not those:
            continue
        aliases = [variant.alias for variant in those]
        values, common = _values(plan, how), _common_parameters(variants)
        own = [name for name in those[0].source.parameters if name not in (*common, *COUNTERS)]
        out.append(
            Loads(
                how,
                f"in ({', '.join(aliases)})" if len(aliases) > 1 else f"is {aliases[0]}",
                tuple((name, values[name]) for name in own if not name.startswith("stride_"))
                + tuple(("**", text) for text in _strides(own))
                + ((("**", "config.counters(q)"),) if how == "gluon" else ()),
            )
        )
    return tuple(out)


def _common_parameters(variants: Sequence[Variant]) -> list[str]:
    """Parameters that every kernel has, given in the same way."""
    parameters = [variant.source.parameters for variant in variants]
    several = len({variant.loads for variant in variants}) > 1
    common = [name for name in parameters[0] if all(name in other for other in parameters)]
    return [name for name in common if "_desc_" not in name] if several else common


def _strides(parameters: Sequence[str]) -> list[str]:
    """The stride parameters among these, as one expression."""
    letters = dict.fromkeys(name[7] for name in parameters if re.fullmatch(r"stride_[qkvo][bhs]", name))
    tensors = ", ".join(f"{letter}={'out' if letter == 'o' else letter}" for letter in letters)
    return [f"_common.strides({tensors})"] if tensors else []


def _arguments(plan: ForwardPlan, variants: Sequence[Variant], loads: Sequence[Loads]) -> tuple[str, ...]:
    """The keywords of the launch, in the order of the kernel's parameters; ``kv`` stands for those that vary."""
    common, values = _common_parameters(variants), _values(plan, variants[0].loads)
    several = len(loads) > 1
    out = []
    for name in variants[0].source.parameters:
        if name not in common:
            text = "**kv" if several else ""
        elif re.fullmatch(r"stride_[qkvo][bhs]", name):
            text = f"**{_strides(common)[0]}"
        else:
            text = f"{name}={values[name]}"
        if text and text not in out:
            out.append(text)
    return (*out, *(["**kv"] if several and "**kv" not in out else []), "**config.options")


def _documentation(plan: ForwardPlan) -> tuple[str, ...]:
    """The rest of the op's docstring."""
    kind = plan.kind
    paragraphs = [seen_and_scored(kind), "", tensors(kind, "seq_k" if kind.compress is None else "compressed")]
    paragraphs += [f"{argument.name}: {_form(argument)}{argument.meaning}." for argument in plan.arguments]
    if kind.compress is None:
        paragraphs += placed()
    else:
        size, stride = kind.compress.size, kind.compress.stride
        paragraphs.append(f"Key j is a compressed one, and stands for {size} keys from {stride} * j on.")
        paragraphs += placed("first query among the keys that were compressed", "valid compressed")
    return wrapped_lines([*paragraphs, returned(kind)])


def _form(argument: Argument) -> str:
    match argument.shape:
        case "heads" | "batch":
            return f"({argument.shape},) "
        case "scale":
            return "(1,) or (heads,), "
        case "kv scale":
            return "(1,) or (KV heads,), "
        case "tensor":
            return f"{argument.rank} dimensions, "
    return ""

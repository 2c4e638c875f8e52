"""A Spec to YAML that a person would have written: shared fields at the top, shorthands wherever they say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from attngen.errors import one_line
from attngen.spec.document import Place, Text
from attngen.spec.fields import LAYER_FIELDS
from attngen.spec.kind import IMPLICIT_KIND, default_scale
from attngen.spec.model import BlockSelect, Indexer, Kind, Select, Spec, Window
from attngen.spec.pattern import OTHERWISE
from attngen.spec.reading import INTEGER, is_flag, is_null, is_number

UNSET = {"causal": "false", "documents": "false", "alibi": "false", "sink": "none"}  # others are null
MAX_WIDTH = 100  # columns before a mapping or list is written in block style
AT_THE_TOP = (  # where a file has one kind: what its model is like, not what its mask is
    "heads",
    "head_dim",
    "latent",
    "dtype",
    "scale",
    "causal",
    "softcap",
    "alibi",
    "score",
    "sink",
)


def dump_spec(spec: Spec, comments: Sequence[str] = ()) -> str:
    """YAML text that parses to an equal spec; ``comments`` are put above it, one a line."""
    written = {kind.name: write_fields(kind) for kind in spec.kinds}
    implicit = len(spec.kinds) == 1 and spec.kinds[0].name == IMPLICIT_KIND
    top = written[IMPLICIT_KIND] if implicit else shared_fields(list(written.values()))
    document: dict[str, Any] = {"name": scalar(spec.name)}
    document.update((field, top[field]) for field in ("heads", "head_dim", "latent", "dtype") if field in top)
    document["layers"] = str(spec.layers)
    document.update((field, top[field]) for field in top if field not in document)
    if not implicit:
        document["kinds"] = {name: own_fields(fields, top) for name, fields in written.items()}
    pattern = write_pattern(spec)
    if pattern is not None:
        document["pattern"] = pattern
    lines = [f"# {one_line(comment)}" for comment in comments]
    for field, value in document.items():
        lines += kinds_block(value) if field == "kinds" else entry(field, value, 0)
    return "\n".join(lines) + "\n"


# --- fields -------------------------------------------------------------------------------------------------------


def write_fields(kind: Kind) -> dict[str, Any]:
    """The fields that say what ``kind`` is, in the order of the language; those at their default are left out."""
    window, select = kind.window, kind.select
    heads = f"{kind.heads.query}" if kind.heads.kv == (1 if kind.latent else kind.heads.query) else vars(kind.heads)
    head_dim = f"{kind.head_dim.qk}" if kind.head_dim.qk == kind.head_dim.v else vars(kind.head_dim)
    values: dict[str, Any] = {
        "heads": heads,
        "head_dim": None if kind.latent else head_dim,
        "latent": vars(kind.latent) if kind.latent else None,
        "dtype": None if kind.dtype == "bfloat16" else kind.dtype,
        "scale": None if kind.scale == default_scale(kind.head_dim.qk) else repr(kind.scale),
        "causal": kind.causal,
        "window": write_window(window) if window else None,
        "chunk": kind.chunk,
        "dilation": kind.dilation,
        "prefix": kind.prefix,
        "always": {"first": kind.always_first} if kind.always_first else None,
        "global_tokens": kind.global_tokens,
        "documents": kind.documents,
        "blocks": {"size": kind.blocks.size, "table": kind.blocks.table} if kind.blocks else None,
        "mask": f'"{kind.mask.text}"' if kind.mask else None,
        "select": write_select(select) if select else None,
        "softcap": None if kind.softcap is None else number(kind.softcap),
        "alibi": kind.alibi,
        "score": f'"{kind.score.text}"' if kind.score else None,
        "sink": "learned" if kind.sink else None,
        "compress": vars(kind.compress) if kind.compress else None,
        "branches": {branch.name: write_branch(branch, kind) for branch in kind.branches} or None,
    }
    return {field: plain(values[field]) for field in LAYER_FIELDS if values[field] not in (None, False)}


def write_window(window: Window) -> dict[str, Any]:
    if window.right == 0 and window.left is not None:
        return {"total": window.left + 1}
    if window.left == window.right:
        return {"half": window.left}
    return {"left": window.left, "right": window.right}


def write_select(select: Select) -> dict[str, Any]:
    if select.blocks is not None:
        return {"blocks": write_block_select(select.blocks)}
    forced = {name: count for name, count in (("first", select.first), ("last", select.last)) if count}
    if select.indexer is None:
        return {"top_k": select.top_k, **forced}
    return {"top_k": select.top_k, **forced, "indexer": write_indexer(select.indexer)}


def write_block_select(blocks: BlockSelect) -> dict[str, Any]:
    values = {name: value for name, value in vars(blocks).items() if name != "pool"}
    defaults = {"first": 0, "last": 0, "per": "head", "by": None}
    return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}


def write_branch(branch: Kind, kind: Kind) -> dict[str, Any]:
    """What a branch says beyond, or against, its kind."""
    own, common = write_fields(branch), write_fields(replace(kind, branches=()))
    unset = {field: UNSET.get(field, "null") for field in common if field not in own}
    return unset | {field: value for field, value in own.items() if common.get(field) != value}


def write_indexer(indexer: Indexer) -> dict[str, Any]:
    scale = {"scale": vars(indexer.scale)} if indexer.scale else {}
    hadamard = {"hadamard": True} if indexer.hadamard else {}
    return {"heads": indexer.heads, "head_dim": indexer.head_dim, "dtype": indexer.dtype, **scale, **hadamard}


def plain(value: Any) -> Any:
    """``value`` with every leaf as YAML text."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return "null" if value is None else "true" if value is True else str(value)


def number(value: float) -> str:
    """The shortest text of a float, without a needless ``.0``."""
    text = repr(value)
    return text[:-2] if text.endswith(".0") and INTEGER.fullmatch(text[:-2]) else text


def scalar(text: str) -> str:
    """``text`` quoted where bare it would be taken for something else."""
    bare = Text(text, True, Place("", 1, 1))
    return f'"{text}"' if is_number(bare) or is_flag(bare) or is_null(bare) else text


# --- kinds --------------------------------------------------------------------------------------------------------


def shared_fields(kinds: list[dict[str, Any]]) -> dict[str, Any]:
    """What belongs at the top: what all kinds share, and the commonest heads and head_dim."""
    top: dict[str, Any] = {}
    for field in LAYER_FIELDS:
        values = [fields[field] for fields in kinds if field in fields]
        if field in ("heads", "head_dim") and values:
            commonest, _count = Counter(map(str, values)).most_common(1)[0]
            top[field] = next(value for value in values if str(value) == commonest)
            continue
        alike = len(values) == len(kinds) and all(value == values[0] for value in values)
        if alike and (len(kinds) > 1 or field in AT_THE_TOP):
            top[field] = values[0]
    if "latent" in top:
        top.pop("head_dim", None)
    return top


def own_fields(fields: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """What a kind says beyond, or against, the top."""
    return {field: value for field, value in fields.items() if top.get(field) != value}


def kinds_block(kinds: dict[str, dict[str, Any]]) -> list[str]:
    """The kinds, one a line with their fields aligned, or in block style where that is too wide."""
    width = max(map(len, kinds))
    lines = ["kinds:"]
    for name, fields in kinds.items():
        line = f"  {name}:{' ' * (width - len(name))} {flow(fields)}"
        lines += [line] if len(line) <= MAX_WIDTH else entry(name, fields, 2)
    return lines


# --- pattern ------------------------------------------------------------------------------------------------------


def write_pattern(spec: Spec) -> Any:
    """The shortest way to say which layer is which; None where it goes without saying."""
    layers = spec.layer_kinds
    if len(spec.kinds) == 1 and set(layers) == {spec.kinds[0].name}:
        return None
    period = next(p for p in range(1, len(layers) + 1) if all(a == b for a, b in zip(layers, layers[p:], strict=False)))
    if period > 2 and len(set(layers)) == 2:
        for name in sorted(set(layers), key=layers.count):
            places = [layer for layer, kind in enumerate(layers) if kind == name]
            every = places[1] - places[0] if len(places) > 1 else len(layers)
            if places == list(range(places[0], len(layers), every)):
                step = f"every {every} from {places[0]}" if places[0] else f"every {every}"
                (otherwise,) = set(layers) - {name}
                return {name: step, OTHERWISE: otherwise}
    return list(layers[:period])


# --- text ---------------------------------------------------------------------------------------------------------


def flow(value: Any) -> str:
    """``value`` on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(part)}" for key, part in value.items()) + "}"
    return "[" + ", ".join(value) + "]" if isinstance(value, list) else str(value)


def entry(field: str, value: Any, indent: int) -> list[str]:
    """A field on one line, or on several where it is too wide for one."""
    line = f"{' ' * indent}{field}: {flow(value)}"
    if len(line) <= MAX_WIDTH or isinstance(value, str):
        return [line]
    lines = [f"{' ' * indent}{field}:"]
    if isinstance(value, dict):
        for key, part in value.items():
            lines += entry(key, part, indent + 2)
        return lines
    row = " " * indent + "  ["
    for item in value:
        if len(row) + len(item) + 2 > MAX_WIDTH:
            lines.append(row.rstrip())
            row = " " * indent + "   "
        row += item + ", "
    return [*lines, row.removesuffix(", ") + "]"]

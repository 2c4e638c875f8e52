"""How each field that describes a layer is read: one small function a field, and the table of them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

from attngen.spec.document import Fields, Node, Text
from attngen.spec.expression import Expression, ExpressionError
from attngen.spec.model import DTYPES, Blocks, BlockSelect, Compress, Indexer, IndexerScale, Latent, Select, Window
from attngen.spec.reading import choice, fields, flag, is_integer, is_null, positive, whole, wrong

MAX_HEADS = 1024
MIN_HEAD_DIM, MAX_HEAD_DIM = 16, 256
MAX_RANK = 1024
HEADS_EXAMPLE = "{query: 32, kv: 8}"
WINDOW_EXAMPLE = "{left: 127, right: 0}, {total: 128} or {half: 64}"
BLOCKS_EXAMPLE = "{size: 64, top_k: 16}"
SELECT_EXAMPLE = "{top_k: 2048, indexer: {heads: 64, head_dim: 128}} or {blocks: {size: 64, top_k: 16}}"


def read_heads(node: Node) -> tuple[int, int | None]:
    """Query heads and KV heads; None for the latter where the spec leaves them to the default."""
    if not isinstance(node, Fields):
        return whole(node, "heads", 1, MAX_HEADS, f", or {HEADS_EXAMPLE},"), None
    parts = fields(node, "heads", HEADS_EXAMPLE, ("query", "kv"), ("query",))
    query = whole(parts["query"], "heads.query", 1, MAX_HEADS)
    kv = whole(parts["kv"], "heads.kv", 1, MAX_HEADS) if "kv" in parts else None
    if kv is not None and query % kv:
        raise parts["kv"].place.error(f"heads.kv {kv} does not divide heads.query {query}", "a divisor would be right")
    return query, kv


def read_head_dim(node: Node) -> tuple[int, int]:
    example = "{qk: 192, v: 128}"
    if not isinstance(node, Fields):
        both = whole(node, "head_dim", MIN_HEAD_DIM, MAX_HEAD_DIM, f", or {example},")
        return both, both
    parts = fields(node, "head_dim", example, ("qk", "v"), ("qk", "v"))
    qk, v = (whole(parts[name], f"head_dim.{name}", MIN_HEAD_DIM, MAX_HEAD_DIM) for name in ("qk", "v"))
    return qk, v


def read_dtype(node: Node) -> str:
    return choice(node, "dtype", DTYPES)


def read_scale(node: Node) -> float | None:
    return None if is_null(node) else positive(node, "scale")


def read_softcap(node: Node) -> float | None:
    return None if is_null(node) else positive(node, "softcap")


def read_window(node: Node) -> Window | None:
    if is_null(node):
        return None
    if isinstance(node, Text) and is_integer(node):
        n = node.text
        remedy = f"{{total: {n}}} (i - {n} < j <= i), {{half: {n}}} (|i - j| <= {n}) or {{left: {n}, right: 0}} does"
        raise node.place.error(f"window is {n}, which does not say on which sides", remedy)
    parts = fields(node, "window", WINDOW_EXAMPLE, ("left", "right", "total", "half"))
    for name in ("total", "half"):
        if name in parts and len(parts) > 1:
            other = next(key for key in parts if key != name)
            raise parts[name].place.error(f"window has both '{name}' and '{other}'", "one way to say it would be right")
    if "total" in parts:
        return Window(whole(parts["total"], "window.total") - 1, 0)
    if "half" in parts:
        half = whole(parts["half"], "window.half", 0)
        return Window(half, half)
    if not parts:
        raise node.place.error("window is empty", f"{WINDOW_EXAMPLE} would be right")
    left, right = (read_bound(parts, side) for side in ("left", "right"))
    return None if left is None and right is None else Window(left, right)


def read_bound(parts: dict[str, Node], side: str) -> int | None:
    """One side of a window; left out or null, it is unbounded."""
    if side not in parts or is_null(parts[side]):
        return None
    return whole(parts[side], f"window.{side}", 0, instead=", or null for no bound,")


def read_count(name: str, low: int) -> Callable[[Node], int | None]:
    """The reader of a count that null or ``low`` turn off."""

    def read(node: Node) -> int | None:
        count = None if is_null(node) else whole(node, name, low, instead=", or null,")
        return None if count == low else count

    return read


def read_chunk(node: Node) -> int | None:
    return None if is_null(node) else whole(node, "chunk", instead=", or null,")


def read_prefix(node: Node) -> int | Literal["argument"] | None:
    if is_null(node):
        return None
    if isinstance(node, Text) and node.text == "argument":
        return "argument"
    return whole(node, "prefix", 0, instead=", or argument,") or None


def read_always(node: Node) -> int | None:
    if is_null(node):
        return None
    return whole(fields(node, "always", "{first: 4}", ("first",), ("first",))["first"], "always.first", 0) or None


def read_blocks(node: Node) -> Blocks | None:
    if is_null(node):
        return None
    parts = fields(node, "blocks", "{size: 64, table: argument}", ("size", "table"), ("size",))
    if "table" in parts:
        choice(parts["table"], "blocks.table", ("argument",))
    return Blocks(whole(parts["size"], "blocks.size"))


def read_select(node: Node) -> Select | None:
    if is_null(node):
        return None
    parts = fields(node, "select", SELECT_EXAMPLE, ("top_k", "indexer", "first", "last", "blocks"))
    if "blocks" in parts:
        if len(parts) > 1:
            other = next(name for name in parts if name != "blocks")
            raise parts["blocks"].place.error(f"select has both 'blocks' and '{other}'", "one of them would be right")
        return Select(blocks=read_block_select(parts["blocks"]))
    if "top_k" not in parts:
        raise node.place.error("select has neither 'top_k' nor 'blocks'", f"{SELECT_EXAMPLE} would be right")
    top_k, first, last = read_top_k(parts, "select")
    return Select(top_k, read_indexer(parts["indexer"]) if "indexer" in parts else None, first, last)


def read_top_k(parts: dict[str, Node], what: str) -> tuple[int, int, int]:
    """How many are selected, and how many of the first and of the last are always among them."""
    top_k = whole(parts["top_k"], f"{what}.top_k")
    first, last = (whole(parts[name], f"{what}.{name}", 0, top_k) if name in parts else 0 for name in ("first", "last"))
    if first + last > top_k:
        problem = f"{what}.first and {what}.last are {first + last}, more than {what}.top_k {top_k}"
        raise parts["last"].place.error(problem, "they count among the selected")
    return top_k, first, last


def read_block_select(node: Node) -> BlockSelect:
    what = "select.blocks"
    allowed = ("size", "top_k", "first", "last", "per", "by", "pool")
    parts = fields(node, what, BLOCKS_EXAMPLE, allowed, ("size", "top_k"))
    if "pool" in parts:
        choice(parts["pool"], f"{what}.pool", ("mean",))
    top_k, first, last = read_top_k(parts, what)
    per = choice(parts["per"], f"{what}.per", ("head", "kv_head")) if "per" in parts else "head"
    by = parts.get("by")
    if by is not None and not isinstance(by, Text):
        raise wrong(by, f"{what}.by", "the name of a branch that compresses keys")
    branch = by.text if isinstance(by, Text) and not is_null(by) else None
    return BlockSelect(whole(parts["size"], f"{what}.size"), top_k, first, last, cast(Any, per), branch)


def read_compress(node: Node) -> Compress | None:
    if is_null(node):
        return None
    parts = fields(node, "compress", "{size: 32, stride: 16}", ("size", "stride"), ("size", "stride"))
    size, stride = (whole(parts[name], f"compress.{name}") for name in ("size", "stride"))
    if size % stride:
        problem = f"compress.stride {stride} does not divide compress.size {size}"
        raise parts["stride"].place.error(problem, "a divisor would be right")
    return Compress(size, stride)


def read_branches(node: Node) -> Fields | None:
    """The branches as they stand: what a kind says besides holds for each of them."""
    if is_null(node):
        return None
    example = "{selected: {select: {blocks: {size: 64, top_k: 16}}}, window: {window: {total: 512}}}"
    if not isinstance(node, Fields):
        raise wrong(node, "branches", example)
    if len(node.entries) < 2:
        problem = "branches has one branch" if node.entries else "branches is empty"
        raise node.place.error(problem, f"two or more, as {example}, would be right")
    return node


def read_indexer(node: Node) -> Indexer | None:
    if is_null(node):
        return None
    example = "{heads: 64, head_dim: 128}"
    allowed = ("heads", "head_dim", "dtype", "scale", "hadamard")
    parts = fields(node, "indexer", example, allowed, ("heads", "head_dim"))
    heads = whole(parts["heads"], "indexer.heads", 1, MAX_HEADS)
    head_dim = whole(parts["head_dim"], "indexer.head_dim", MIN_HEAD_DIM, MAX_HEAD_DIM)
    dtypes = ("float8_e4m3", "bfloat16", "float16")
    dtype = choice(parts["dtype"], "indexer.dtype", dtypes) if "dtype" in parts else dtypes[0]
    scale = None
    if "scale" in parts and not is_null(parts["scale"]):
        if dtype != "float8_e4m3":
            raise parts["scale"].place.error(f"indexer.scale is given for {dtype}", "only float8_e4m3 has scales")
        inside = fields(parts["scale"], "indexer.scale", "{block: 128, format: ue8m0}", ("block", "format"), ("block",))
        block = whole(inside["block"], "indexer.scale.block", 1, head_dim)
        if head_dim % block:
            problem = f"indexer.scale.block {block} does not divide indexer.head_dim {head_dim}"
            raise inside["block"].place.error(problem, "a divisor would be right")
        formats = ("float32", "ue8m0")
        format = choice(inside["format"], "indexer.scale.format", formats) if "format" in inside else formats[0]
        scale = IndexerScale(block, cast(Any, format))
    hadamard = "hadamard" in parts and flag(parts["hadamard"], "indexer.hadamard")
    if hadamard and head_dim & (head_dim - 1):
        problem = f"indexer.hadamard rotates powers of two, and indexer.head_dim is {head_dim}"
        raise parts["hadamard"].place.error(problem, "hadamard: false, or a head_dim of 32, 64 or 128 would be right")
    return Indexer(heads, head_dim, cast(Any, dtype), scale, hadamard)


def read_latent(node: Node) -> Latent | None:
    if is_null(node):
        return None
    parts = fields(node, "latent", "{rank: 512, rope: 64}", ("rank", "rope"), ("rank", "rope"))
    rank = whole(parts["rank"], "latent.rank", MIN_HEAD_DIM, MAX_RANK)
    return Latent(rank, whole(parts["rope"], "latent.rope", 0, MAX_HEAD_DIM))


def read_sink(node: Node) -> bool:
    if is_null(node) or (isinstance(node, Text) and node.text == "none"):
        return False
    if isinstance(node, Text) and node.text == "learned":
        return True
    raise wrong(node, "sink", "learned, or none,")


def read_flag(name: str) -> Callable[[Node], bool]:
    return lambda node: flag(node, name)


def read_expression(role: Literal["mask", "score"]) -> Callable[[Node], Expression | None]:
    def read(node: Node) -> Expression | None:
        if is_null(node):
            return None
        if not isinstance(node, Text):
            raise wrong(node, role, "an expression in quotes")
        try:
            return Expression.parse(node.text, role)
        except ExpressionError as error:
            raise node.at(error.column).error(error.problem, error.remedy) from None

    return read


LAYER_FIELDS: dict[str, Callable[[Node], Any]] = {
    "heads": read_heads,
    "head_dim": read_head_dim,
    "latent": read_latent,
    "dtype": read_dtype,
    "scale": read_scale,
    "causal": read_flag("causal"),
    "window": read_window,
    "chunk": read_chunk,
    "dilation": read_count("dilation", 1),
    "prefix": read_prefix,
    "always": read_always,
    "global_tokens": read_count("global_tokens", 0),
    "documents": read_flag("documents"),
    "blocks": read_blocks,
    "mask": read_expression("mask"),
    "select": read_select,
    "softcap": read_softcap,
    "alibi": read_flag("alibi"),
    "score": read_expression("score"),
    "sink": read_sink,
    "compress": read_compress,
    "branches": read_branches,
}

"""What the module and the README of an op that attends to selected keys say of it in words."""

from __future__ import annotations

from collections.abc import Iterable

from attngen.package.words import placed, returned, seen_and_scored
from attngen.plan.attention import run_time_arguments
from attngen.spec.model import Kind

NARROW = "float8_e4m3"


def documentation(kind: Kind) -> Iterable[str]:
    """Of the op: paragraphs of its docstring after the first line."""
    heads, dim, select, latent = kind.heads, kind.head_dim, kind.select, kind.latent is not None
    assert select is not None
    yield seen_and_scored(kind)
    yield ""
    values = f"v: (batch, {heads.kv}, seq_k, {dim.v})."
    if latent:
        values = f"v: None; a key's first {dim.v} columns are its value."
    yield (
        f"q: (batch, {heads.query}, seq_q, {dim.qk}). k: (batch, {heads.kv}, seq_k, {dim.qk}). {values} All "
        f"{kind.torch_dtype}, any strides but a unit last one."
    )
    yield from (f"{argument.name}: ({argument.shape},) {argument.meaning}." for argument in run_time_arguments(kind))
    shapes = "(batch, seq_q, n)" if latent else f"(batch, seq_q, n) or (batch, {heads.kv}, seq_q, n)"
    yield (
        f"indices: {shapes}, int32, any n: distinct keys in any order; an entry below 0, not below seq_k, or beyond "
        "what a query sees is no key."
    )
    if select.indexer is not None:
        yield (
            f"index_q, index_k, index_weights: what {select.top_k} keys are selected by where indices are left out, as "
            f"select() has it; not needed for up to {select.top_k} keys, of which a query takes all that it sees."
        )
    yield from placed()
    if select.indexer is not None:
        yield "workspace_bytes: of memory for scores; queries go through it in chunks."
    yield returned(kind)


def select_documentation(kind: Kind, index_dtype: str) -> Iterable[str]:
    """Of the selection alone, scored in ``index_dtype``."""
    select = kind.select
    assert select is not None and select.indexer is not None
    indexer = select.indexer
    taken = f"taken as {index_dtype}"
    if index_dtype == NARROW:
        taken = f"{'rotated and ' if indexer.hadamard else ''}narrowed to 8 bits with a scale each"
    yield (
        f"index_q: (batch, {indexer.heads}, seq_q, {indexer.head_dim}). index_k: (batch, seq_k, {indexer.head_dim}). "
        f"Both in bfloat16, float16 or float32, {taken}. index_weights: (batch, seq_q, {indexer.heads})."
    )
    forced = [f"the {name} {n}" for n, name in ((select.first, "first"), (select.last, "last")) if n]
    always = f" Of what a query sees, {' and '.join(forced)} are always among them." if forced else ""
    yield f"A score is the sum over heads of weight * relu(q . k); ties go to the lowest key, NaN is largest.{always}"


def notes(kind: Kind, function: str, index_dtype: str) -> Iterable[str]:
    """For the README: which keys, and what a call gives."""
    select, dim = kind.select, kind.head_dim
    assert select is not None
    indexer = select.indexer
    listed = "int32 (batch, seq_q, n), where an entry below 0 or not below seq_k is no key"
    if indexer is None:
        yield f"`{function}` attends to the keys of a list for each query: `indices`, {listed}."
    else:
        made = index_dtype
        if index_dtype == NARROW:
            made = "8 bits with a scale a row, of which a kernel makes them (on a GPU of sm_89 or newer)"
        yield (
            f"`{function}` attends to {select.top_k} keys for each query, those with the largest scores of an indexer: "
            f"the sum over heads of weight * relu(q . k), in {made}. `index_q` is (batch, {indexer.heads}, seq_q, "
            f"{indexer.head_dim}), `index_k` (batch, seq_k, {indexer.head_dim}), `index_weights` (batch, seq_q, "
            f"{indexer.heads}). Selection is exact for these scores, and ties go to the lowest key. Scores go through "
            "a workspace of 256 MiB, or `workspace_bytes`, in chunks of queries. Sequences of up to "
            f"{select.top_k} keys are attended to whole. `select`, in the op's module, is the selection alone; lists "
            f"from anywhere are given as `indices` instead: {listed}."
        )
    if kind.latent is not None:
        yield (
            f"A latent is key and value at once: `k` of `{function}` is (batch, 1, seq_k, {dim.qk}), the value its "
            f"first {dim.v} columns, and `v` is left out."
        )

"""What modules of ops say of them in words, of whatever sort they are."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from attngen.spec.describe import describe_kind, describe_mask, describe_score
from attngen.spec.model import Kind

WIDTH = 116  # of a wrapped line in a docstring or comment


def wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, WIDTH))


def wrapped_lines(texts: Iterable[str]) -> tuple[str, ...]:
    """Paragraphs as the lines of a docstring."""
    return tuple(line for text in texts for line in textwrap.wrap(text, WIDTH) or [""])


def described(kind: Kind, function: str) -> dict[str, str]:
    """What an op's module, the package and its README say of it: ``description``, ``contents`` and ``seen``."""
    return {
        "description": wrapped(f"{'; '.join(describe_kind(kind)[1:])}."),
        "seen": describe_mask(kind).removeprefix("sees ").replace("|", "\\|"),
        "contents": "\n".join(textwrap.wrap(f"{function}: {describe_mask(kind)}", WIDTH, subsequent_indent="    ")),
    }


def seen_and_scored(kind: Kind) -> str:
    """Of a docstring: which keys a query sees, and what is done to a score."""
    seen = f"A query at position i {describe_mask(kind)}"
    seen = seen.replace(" sees ", " sees the keys j with ", 1) if "every key" not in seen else seen
    return f"{seen}. Scores: {', '.join(describe_score(kind))}."


def tensors(kind: Kind, keys: str = "seq_k") -> str:
    """Of a docstring: queries, keys and values."""
    heads, dim = kind.heads, kind.head_dim
    return (
        f"q: (batch, {heads.query}, seq_q, {dim.qk}). k: (batch, {heads.kv}, {keys}, {dim.qk}). v: (batch, {heads.kv}, "
        f"{keys}, {dim.v}). All {kind.torch_dtype}, any strides but a unit last one."
    )


def placed(offsets: str = "first query; seq_k - seq_q when left out", valid: str = "valid") -> tuple[str, str]:
    """Of a docstring: what says where queries and valid keys are."""
    return (
        f"offsets: (batch,) position of each sequence's {offsets}.",
        f"key_range: (batch, 2) first and end of each sequence's {valid} keys; all of them when left out.",
    )


def returned(kind: Kind) -> str:
    """Of a docstring: what a call gives."""
    heads, base = kind.heads.query, ", without the sink" if kind.sink else ""
    out = f"(batch, {heads}, seq_q, {kind.head_dim.v}){f' in {kind.out_dtype}' if kind.quantised else ''}"
    return (
        f"Returns out {out}, laid out like q, and with return_lse also lse (batch, {heads}, seq_q), float32, natural "
        f"log{base}. A query that sees no key gets 0 and -inf."
    )

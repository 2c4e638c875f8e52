"""Ops of kinds that select keys, in the form in which transformers attends: a latent's keys and values expanded."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import cast

from attngen.database import Database
from attngen.op import KindOp, SparseOp
from attngen.op.attention import make_op
from attngen.spec.model import HeadDim, Heads, Kind, Select


class Expanded:
    """The ops of one spec's kinds that select keys: (kind, widths, whether all keys are selected) -> op."""

    def __init__(self, spec: str, db: Database | str | None) -> None:
        self._op = cache(lambda kind: make_op(spec, kind, db))

    def op(self, kind: Kind, qk: int, v: int, *, every: bool) -> KindOp | SparseOp:
        """The op for queries and keys ``qk`` and values ``v`` wide.

        With ``every``, where the lists hold each key there is, that of attention without lists: the same, and dense
        attention reads a key once for many queries.
        """
        kind = expand(kind, qk, v)
        return cast("KindOp | SparseOp", self._op(replace(kind, select=None) if every else kind))


def expand(kind: Kind, qk: int, v: int) -> Kind:
    """The same attention over lists that are given, with keys and values for each head where ``kind`` has a latent."""
    top_k = None if kind.select is None else kind.select.top_k
    listed = replace(kind, select=Select(top_k))
    if kind.latent is None:
        return listed
    return replace(listed, heads=Heads(kind.heads.query, kind.heads.query), head_dim=HeadDim(qk, v), latent=None)

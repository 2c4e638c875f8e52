"""The attention function that transformers calls for every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from attngen.database import Database
from attngen.errors import CallError, one_of
from attngen.integrations.transformers.checks import (
    INDICES,
    check_first_key,
    check_layer,
    check_lists,
    check_packed,
    check_request,
    check_selection,
)
from attngen.integrations.transformers.expanded import Expanded
from attngen.integrations.transformers.in_graph import check_first_key_in_graph, check_in_graph
from attngen.integrations.transformers.masks import Mask, read_mask, within_chunk
from attngen.op import Attention, load
from attngen.plan.kernels import selects_keys
from attngen.spec import Kind, Spec

DTYPES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32"}
SINK = "s_aux"  # transformers' name for the learned sinks


class Attend:
    """``spec`` as an attention function: (module, q, k, v, mask, **keywords) -> (out, None).

    q is (batch, heads, seq_q, dim), out (batch, seq_q, heads, dim). The module says which layer it is; attention
    weights are never made. Kinds that select keys attend to the keyword ``indices``, int32 (batch, seq_q, n): distinct
    keys in any order, of which those that a query may not see, and negative ones, are none; n = seq_k lists all.
    """

    def __init__(self, spec: Spec, db: Database | str | None, strict: bool) -> None:
        self.spec = spec
        self.strict = strict
        self._db = db
        self._loaded: dict[tuple[Any, ...], Attention] = {}  # by dtype, and what is changed of every kind
        self._expanded = Expanded(spec.name, db)

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **keywords: Any,
    ) -> tuple[torch.Tensor, None]:
        layer = check_layer(self.spec, module, self.strict)
        op: Any = self.attention(query.dtype).op(layer)
        check_lists(op.kind, layer, keywords)
        if selects_keys(op.kind):
            out = self._over_lists(op.kind, layer, module, (query, key, value), attention_mask, keywords)
        else:
            mask = self._requested(op.kind, layer, attention_mask, keywords)
            drawn = mask.drawn if mask.drawn is not None and self._is_first(module, layer) else None
            if drawn is not None:
                lengths = (query.shape[2], key.shape[2])
                check_in_graph(op.kind, layer, drawn, mask.key_range, lengths, keywords, self.strict)
            if op.kind.chunk is not None and query.shape[2] == 1 and mask.first_key != 0:
                # A cache that has let older keys go need not begin with a chunk: one query's has two bounds instead.
                mask = within_chunk(mask, attention_mask, op.kind.chunk, key.shape[2])
                op = self.attention(query.dtype, chunk=None).op(layer)
            check_first_key(op.kind, layer, mask.first_key)
            if drawn is not None:
                check_first_key_in_graph(op.kind, layer, drawn)
            extras = {argument.name: given(keywords, argument.name) for argument in op.plan.arguments}
            ends = packed_ends(mask, keywords)
            if ends is not None:
                padded = mask.key_range is not None and mask.drawn is None  # where it is drawn, that is asserted
                check_packed(op.kind, layer, padded, mask.own_chunks, keywords)
                return self._packed(layer, (query, key, value), ends, extras), None
            out = op(query, key, value, offsets=mask.offsets, key_range=mask.key_range, **extras)
        return out.transpose(1, 2), None

    def _packed(
        self,
        layer: int,
        qkv: tuple[torch.Tensor, ...],
        ends: tuple[torch.Tensor, torch.Tensor],
        extras: dict[str, Any],
    ) -> torch.Tensor:
        """Attention of several sequences packed in one row, or in each."""
        query = qkv[0]
        op: Any = self.attention(query.dtype, documents=True).op(layer)
        q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in qkv)
        out = op(q, k, v, cu_seqlens_q=ends[0], cu_seqlens_k=ends[1], **extras)
        return out.unflatten(0, (query.shape[0], query.shape[2]))

    @torch.compiler.disable  # its ops are made when widths are first met, which a graph could not do
    def _over_lists(
        self,
        kind: Kind,
        layer: int,
        module: torch.nn.Module,
        qkv: tuple[torch.Tensor, ...],
        attention_mask: torch.Tensor | None,
        keywords: Mapping[str, Any],
    ) -> torch.Tensor:
        """Attention of each query over its own list of keys."""
        mask = self.mask(kind, layer, attention_mask, keywords)
        if self.strict:
            check_selection(kind, layer, module)
        query, key, value = qkv
        indices = keywords[INDICES]
        every = indices.shape[-1] == key.shape[2]
        op: Any = self._expanded.op(kind, query.shape[-1], value.shape[-1], every=every)
        extras = {} if every else {INDICES: indices}
        if kind.sink:
            extras["sink"] = given(keywords, "sink")
        return op(query, key, value, offsets=mask.offsets, key_range=mask.key_range, **extras)

    def mask(self, kind: Kind, layer: int, attention_mask: torch.Tensor | None, keywords: Mapping[str, Any]) -> Mask:
        """The mask of a call whose every request has been compared with ``kind``, as its op takes it."""
        mask = self._requested(kind, layer, attention_mask, keywords)
        check_first_key(kind, layer, mask.first_key)
        return mask

    def _is_first(self, module: torch.nn.Module, layer: int) -> bool:
        """Whether a layer is the first of its kind and of its type in the model, and so asserts for all of them."""
        types = getattr(getattr(module, "config", None), "layer_types", None) or []
        kinds = self.spec.layer_kinds
        pairs = [(kind, types[n] if n < len(types) else None) for n, kind in enumerate(kinds)]
        return pairs.index(pairs[layer]) == layer

    def _requested(self, kind: Kind, layer: int, attention_mask: Any, keywords: Mapping[str, Any]) -> Mask:
        mask = read_mask(attention_mask, layer)
        check_request(kind, layer, mask.pattern, keywords, self.strict)
        return mask

    def attention(self, dtype: torch.dtype, **changes: Any) -> Attention:
        """The spec's ops in ``dtype``, its kinds with some ``changes``; made when they are first met."""
        key = (dtype, *changes.items())
        loaded = self._loaded.get(key)
        if loaded is None:
            if dtype not in DTYPES:
                allowed = one_of(DTYPES.values())
                raise CallError(f"the model runs in {str(dtype).removeprefix('torch.')}; {allowed} is supported")
            spec = replace(self.spec, kinds=tuple(replace(kind, **changes) for kind in self.spec.kinds))
            loaded = load(spec, dtype=DTYPES[dtype], db=self._db)  # type: ignore[arg-type]
            self._loaded[key] = loaded
            # Now: a compiler cannot make ops in the middle of a graph.
            if not changes and any(kind.chunk is not None for kind in self.spec.kinds):
                self.attention(dtype, chunk=None)
            if not changes and not any(selects_keys(kind) for kind in self.spec.kinds):
                self.attention(dtype, documents=True)
        return loaded


def packed_ends(mask: Mask, keywords: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Where packed sequences begin among queries and keys: as the call says, or as its positions start again."""
    said = keywords.get("cu_seq_lens_q"), keywords.get("cu_seq_lens_k")
    if said[0] is not None:
        return said[0].int(), said[0].int() if said[1] is None else said[1].int()
    return None if mask.cu_seqlens is None else (mask.cu_seqlens, mask.cu_seqlens)


def given(keywords: Mapping[str, Any], argument: str) -> Any:
    """What the model gives for an argument of an op, which it may know by another name."""
    return keywords.get(SINK if argument == "sink" else argument)

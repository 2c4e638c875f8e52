"""Whether what a model asks of a layer is what the spec says of it: silence here would be wrong text there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from attngen.errors import CallError
from attngen.integrations.transformers.pattern import Pattern
from attngen.plan.kernels import selects_keys
from attngen.spec import EXTERNAL, Kind, Spec
from attngen.spec.describe import describe_mask
from attngen.spec.model import Window

WINDOW = "sliding_window"  # transformers' name for how many keys a window has on each side, a query's own among them
INDICES = "indices"  # transformers' name for the keys that an indexer selected

# Keywords that change the result and that no op takes.
UNSUPPORTED = {
    "position_bias": "a bias of the scores",
    "head_mask": "a mask of heads",
    "block_indices": "the blocks that an indexer selected",
}

PADDED_ROWS = "layer {}: sequences packed in rows that are padded besides are not supported"
LET_GO = "layer {}: kind '{}' counts from the first key, which its cache has let go"


def check_layer(spec: Spec, module: Any, strict: bool) -> int:
    """The number of the layer that calls; CallError for a module that is no layer of the spec."""
    layer = getattr(module, "layer_idx", None)
    if not isinstance(layer, int):
        raise CallError(f"{type(module).__name__} has no layer_idx, so its kind cannot be told; it is not supported")
    config = getattr(module, "config", None)
    layers = getattr(config, "num_hidden_layers", spec.layers)
    if (strict and layers != spec.layers) or layer >= spec.layers:
        raise CallError(f"the model has {layers} layers; spec '{spec.name}' has {spec.layers}")
    if spec.layer_kinds[layer] == EXTERNAL:
        raise CallError(f"layer {layer} attends; spec '{spec.name}' says it is external")
    return layer


def check_request(kind: Kind, layer: int, pattern: Pattern | None, keywords: Mapping[str, Any], strict: bool) -> None:
    """CallError unless ``kind`` does what the model asks of ``layer``."""
    if keywords.get("dropout"):
        remedy = "model.eval(), or attention_dropout=0, would be right"
        raise CallError(f"layer {layer}: attention dropout of {keywords['dropout']:g} is not supported; {remedy}")
    if keywords.get("output_attentions"):
        raise CallError("attention weights are never made; output_attentions needs attn_implementation='eager'")
    for name, meaning in UNSUPPORTED.items():
        if keywords.get(name) is not None:
            raise CallError(f"layer {layer}: the model gives {name}, {meaning}, which is not supported")
    if strict:
        _check_mask(kind, layer, pattern)
        if pattern is None and torch.compiler.is_compiling():
            _check_window(kind, layer, keywords)
        _check_score(kind, layer, keywords)


def check_lists(kind: Kind, layer: int, keywords: Mapping[str, Any]) -> None:
    """CallError unless the model lists keys where, and only where, ``kind`` selects some."""
    if (keywords.get(INDICES) is not None) != selects_keys(kind):
        asks, is_one = ("no indices", "selects") if selects_keys(kind) else ("indices of selected keys", "selects none")
        raise CallError(f"layer {layer}: the model gives {asks}; the spec's kind '{kind.name}' {is_one}")


def check_packed(kind: Kind, layer: int, padded: bool, own_chunks: bool | None, keywords: Mapping[str, Any]) -> None:
    """CallError unless several sequences in a row can be told apart as the model means them; ``own_chunks``: whether a
    chunk begins where each sequence does, None where nothing says so."""
    if padded:
        raise CallError(PADDED_ROWS.format(layer))
    apart = own_chunks or (own_chunks is None and keywords.get("cu_seq_lens_q") is not None)
    if kind.chunk is not None and not apart:
        raise CallError(
            f"layer {layer}: chunks of {kind.chunk} in packed sequences are supported where one begins with each "
            "sequence: position_ids that begin at 0, with transformers 5.23 or later, or cu_seq_lens_q"
        )


def check_selection(kind: Kind, layer: int, module: Any) -> None:
    """CallError unless the latent and the indexer of ``kind`` are those of an attention layer of the model."""
    select, latent = kind.select, kind.latent
    config, indexer = module.config, getattr(module, "indexer", None)
    said: dict[str, int | None] = {"num_attention_heads": kind.heads.query}
    if latent is not None:
        said |= {"kv_lora_rank": latent.rank, "qk_rope_head_dim": latent.rope}
    if select is not None:
        said["index_topk"] = select.top_k
    if select is not None and select.indexer is not None:
        if indexer is None:
            raise CallError(
                f"layer {layer} attends to the keys that the layer before selected; the spec's kind '{kind.name}' has "
                "an indexer"
            )
        said |= {"index_n_heads": select.indexer.heads, "index_head_dim": select.indexer.head_dim}
    for field, value in said.items():
        if getattr(config, field, None) != value:
            has = getattr(config, field, None)
            raise CallError(f"layer {layer}: the model's {field} is {has}; the spec's kind '{kind.name}' has {value}")
    if select is not None and (select.first or select.last):
        raise CallError(
            f"layer {layer}: the spec's kind '{kind.name}' always selects its first {select.first} and last "
            f"{select.last} keys, which the model does not ask for"
        )


def _check_mask(kind: Kind, layer: int, pattern: Pattern | None) -> None:
    extra = [name for name in ("dilation", "prefix", "always_first", "global_tokens", "mask") if getattr(kind, name)]
    if pattern is None and not extra:
        return  # unknown: compiled, or the descriptor moved to another device
    if extra or pattern != Pattern(kind.causal, kind.window, kind.chunk):
        asked = "asks for no such thing" if pattern is None else f"asks that a query {pattern}"
        raise CallError(f"layer {layer}: the model {asked}; by the spec's kind '{kind.name}' it {describe_mask(kind)}")


def _check_window(kind: Kind, layer: int, keywords: Mapping[str, Any]) -> None:
    """In a graph, where no mask function can be read, what the model says of its window."""
    if WINDOW not in keywords:
        return
    size = keywords[WINDOW]
    window = None if size is None else Window(size - 1, 0 if kind.causal else size - 1)
    if window != kind.window:
        asked = f"has a sliding_window of {size}" if size is not None else "has no sliding_window"
        raise CallError(f"layer {layer}: the model {asked}; by the spec's kind '{kind.name}' it {describe_mask(kind)}")


def _check_score(kind: Kind, layer: int, keywords: Mapping[str, Any]) -> None:
    scale = keywords.get("scaling")
    scale = kind.head_dim.qk**-0.5 if scale is None else float(scale)
    if abs(scale - kind.scale) > 1e-5 * kind.scale:
        raise CallError(
            f"layer {layer}: the model scales by {scale:.7g}; the spec's kind '{kind.name}' by {kind.scale:.7g}"
        )
    softcap = keywords.get("softcap")
    if softcap != kind.softcap:
        raise CallError(
            f"layer {layer}: the model's softcap is {softcap}; that of the spec's '{kind.name}' is {kind.softcap}"
        )
    if (keywords.get("s_aux") is not None) != kind.sink:
        has, says = ("sinks", "none") if not kind.sink else ("no sinks", "a learned one")
        raise CallError(f"layer {layer}: the model has {has}; the spec's kind '{kind.name}' has {says}")
    for name in ("alibi", "score"):
        if getattr(kind, name):
            raise CallError(
                f"layer {layer}: the spec's kind '{kind.name}' has '{name}', which the model does not ask for"
            )


def check_first_key(kind: Kind, layer: int, first_key: int | None) -> None:
    """CallError for a kind that counts from the first key of a sequence, which is not that of the cache."""
    if first_key and position_bound(kind):
        raise CallError(LET_GO.format(layer, kind.name))


def position_bound(kind: Kind) -> bool:
    """Whether what a query sees depends on where the sequence begins, not on distances alone."""
    expressions = (kind.mask, kind.score)
    return any((kind.prefix, kind.always_first, kind.global_tokens, kind.chunk)) or any(
        e is not None for e in expressions
    )

"""FlexAttention for a kind: its mask as a block mask, its score as a score_mod, compiled for the case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from attngen.spec.model import Kind


def make(kind: Kind, inputs: dict[str, Any], also: Callable | None = None) -> Callable[[], Any]:
    """The compiled call; Unsupported for what is only known at call time or written as an expression.

    ``also``: another mask, by which a pair must be visible too.
    """
    from torch.nn.attention.flex_attention import and_masks, create_block_mask, flex_attention

    from attngen.bench.peers import refuse

    expressible = {"causal", "window", "chunk", "dilation", "prefix", "always_first", "global_tokens"}
    refuse(kind, allowed=expressible | {"softcap", "alibi", "sink"}, name="this FlexAttention benchmark")
    q, k, v = inputs["q"], inputs["k"], inputs["v"]
    masks = [mask for mask in (mask_mod(kind, inputs), also) if mask is not None]
    mask = and_masks(*masks) if masks else None
    # Not compiled: that takes minutes, and the mask is made before the clock starts.
    block_mask = None
    if mask is not None:
        block_mask = create_block_mask(mask, None, None, q.shape[2], k.shape[2], device=q.device)
    compiled = torch.compile(flex_attention, dynamic=False)
    options: dict[str, Any] = {"score_mod": score_mod(kind, inputs), "block_mask": block_mask, "scale": kind.scale}
    grouped = kind.heads.group > 1

    def call() -> Any:
        return compiled(q, k, v, enable_gqa=grouped, **options)

    return call


def make_documents(kind: Kind, inputs: dict[str, Any]) -> Callable[[], Any]:
    """The same for packed documents, whose tokens are the same on both sides: its mask tells them apart."""
    q, ends = inputs["q"], inputs["cu_seqlens_q"]
    document = torch.searchsorted(ends, torch.arange(q.shape[2], device=q.device), right=True)

    def same(b: Any, h: Any, query: Any, j: Any) -> Any:
        return document[query] == document[j]

    return make(replace(kind, documents=False), inputs, also=same)


def mask_mod(kind: Kind, inputs: dict[str, Any]) -> Callable | None:
    """Which pairs are visible, by the same rules as a spec; None where all are."""
    offset = inputs["k"].shape[2] - inputs["q"].shape[2]
    window, chunk, dilation = kind.window, kind.chunk, kind.dilation
    prefix = inputs.get("prefix", kind.prefix)
    if not any((kind.causal, window, chunk, dilation)):
        return None

    def seen(b: Any, h: Any, query: Any, j: Any) -> Any:
        i = query + offset
        causal = j <= i if kind.causal else j >= 0
        visible = causal
        if window is not None and window.left is not None:
            visible = visible & (j >= i - window.left)
        if window is not None and window.right is not None:
            visible = visible & (j <= i + window.right)
        if chunk is not None:
            visible = visible & (i // chunk == j // chunk)
        if dilation is not None:
            visible = visible & ((i - j) % dilation == 0)
        if prefix is not None:
            visible = visible | (j < (prefix if isinstance(prefix, int) else prefix[b]))
        if kind.always_first is not None:
            visible = visible | ((j < kind.always_first) & causal)
        if kind.global_tokens is not None:
            visible = visible | (((i < kind.global_tokens) | (j < kind.global_tokens)) & causal)
        return visible

    return seen


def score_mod(kind: Kind, inputs: dict[str, Any]) -> Callable | None:
    """Softcap and ALiBi; None where scores stay as they are."""
    cap, slopes = kind.softcap, inputs.get("alibi_slopes")
    offset = inputs["k"].shape[2] - inputs["q"].shape[2]
    if cap is None and slopes is None:
        return None

    def score(s: Any, b: Any, h: Any, query: Any, j: Any) -> Any:
        if cap is not None:
            s = cap * torch.tanh(s / cap)
        if slopes is not None:
            s = s - slopes[h] * (query + offset - j).abs()
        return s

    return score

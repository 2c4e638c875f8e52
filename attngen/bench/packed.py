"""Packed documents, measured: the calls of ours and of peers, on documents of given lengths in one row of tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from attngen.bench import flex
from attngen.inputs import make_inputs
from attngen.op import KindOp
from attngen.plan import plan_forward
from attngen.report.work import Work, backward_work_of, summed, work_of
from attngen.spec.model import Kind
from attngen.target import Target

ENDS = ("cu_seqlens_q", "cu_seqlens_k")


def packed_inputs(kind: Kind, lengths: Sequence[int], device: str) -> dict[str, Any]:
    """Keywords as operators take them: q, k and v (1, heads, tokens, dim), views of (tokens, heads, dim)."""
    tokens = sum(lengths)
    ends = torch.tensor([0, *lengths], dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)
    return make_inputs(kind, 1, tokens, tokens, device=device, seed=2) | dict.fromkeys(ENDS, ends)


def packed_work(kind: Kind, lengths: Sequence[int], target: Target, backward: bool) -> Work:
    """What the documents must do at least, each for itself."""
    plan = plan_forward(replace(kind, documents=False))
    of = backward_work_of if backward else work_of
    return summed([of(plan, 1, length, length, target) for length in lengths], sum(lengths) ** 2)


def our_packed(op: KindOp, inputs: dict[str, Any]) -> Callable[[], Any]:
    """Our call."""
    given = inputs | _tokens(inputs)
    return lambda: op(**given)


def _tokens(inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """q, k and v as (tokens, heads, dim)."""
    return {name: inputs[name][0].transpose(0, 1) for name in "qkv"}


def fa3_varlen(kind: Kind, inputs: dict[str, Any]) -> Callable[[], Any]:
    from flash_attn_interface import flash_attn_varlen_func

    options = {"softmax_scale": kind.scale, "causal": kind.causal, **_lengths(inputs)}
    if kind.window is not None:
        left, right = kind.window.left, kind.window.right
        options["window_size"] = (-1 if left is None else left, 0 if kind.causal else -1 if right is None else right)
    return _varlen(kind, inputs, flash_attn_varlen_func, options, "FA3")


def fa4_varlen(kind: Kind, inputs: dict[str, Any], deterministic: bool = False) -> Callable[[], Any]:
    from flash_attn.cute import flash_attn_varlen_func  # type: ignore[import-not-found]

    from attngen.bench.peers import Unsupported

    options = {"softmax_scale": kind.scale, "causal": kind.causal, **_lengths(inputs)}
    if kind.window is not None:
        options["window_size"] = (kind.window.left, kind.window.right)
    if deterministic:
        if "deterministic" not in inspect.signature(flash_attn_varlen_func).parameters:
            raise Unsupported("this FA4 has no deterministic backward pass")
        options["deterministic"] = True
    return _varlen(kind, inputs, flash_attn_varlen_func, options, "FA4")


def _varlen(kind: Kind, inputs: dict[str, Any], function: Any, options: dict[str, Any], name: str) -> Callable:
    from attngen.bench.peers import refuse

    refuse(replace(kind, documents=False), allowed={"causal", "window"}, name=name)
    return partial(function, *_tokens(inputs).values(), **options)


def _lengths(inputs: dict[str, Any]) -> dict[str, Any]:
    """Where documents begin, and how long the longest is, as FlashAttention takes them."""
    longest = {f"max_seqlen_{side}": int(inputs[f"cu_seqlens_{side}"].diff().max()) for side in "qk"}
    return {name: inputs[name] for name in ENDS} | longest


def flex_documents(kind: Kind, inputs: dict[str, Any]) -> Callable[[], Any]:
    """FlexAttention whose mask tells documents apart: tokens of both sides are the same."""
    q, ends = inputs["q"], inputs["cu_seqlens_q"]
    document = torch.searchsorted(ends, torch.arange(q.shape[2], device=q.device), right=True)

    def same(b: Any, h: Any, query: Any, j: Any) -> Any:
        return document[query] == document[j]

    return flex.make(replace(kind, documents=False), inputs, also=same)

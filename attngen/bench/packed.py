"""Packed documents, measured: the calls of ours and of peers, on documents of given lengths in one row of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

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
    return make_inputs(kind, 1, tokens, tokens, device=device, seed=2, lengths=lengths)


def packed_work(kind: Kind, lengths: Sequence[int], target: Target, backward: bool) -> Work:
    """What the documents must do at least, each for itself."""
    plan = plan_forward(replace(kind, documents=False))
    of = backward_work_of if backward else work_of
    return summed([of(plan, 1, length, length, target) for length in lengths], sum(lengths) ** 2)


def op_call(op: KindOp, inputs: dict[str, Any]) -> Callable[[], Any]:
    """A call of ours, which takes packed tensors of documents."""
    given = inputs | tokens_of(inputs) if op.kind.documents else inputs
    return lambda: op(**given)


def tokens_of(inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """q, k and v as (tokens, heads, dim)."""
    return {name: inputs[name][0].transpose(0, 1) for name in "qkv"}


def longest_of(inputs: dict[str, Any]) -> dict[str, Any]:
    """Where documents begin, and how long the longest is, as FlashAttention takes them."""
    longest = {f"max_seqlen_{side}": int(inputs[f"cu_seqlens_{side}"].diff().max()) for side in "qk"}
    return {name: inputs[name] for name in ENDS} | longest

"""Whether a call fits a kind that selects blocks: one clear error before anything is launched."""

from __future__ import annotations

from typing import NamedTuple

import torch

from attngen.errors import CallError
from attngen.op.checks import check_call
from attngen.op.expected import check_sink
from attngen.plan.forward import ForwardPlan

Tensor = torch.Tensor
Maybe = torch.Tensor | None


class BlockCall(NamedTuple):
    """What the operator of a kind that selects blocks is given, in order."""

    q: Tensor
    k: Tensor
    v: Tensor
    blocks: Maybe = None
    sink: Maybe = None
    offsets: Maybe = None
    key_range: Maybe = None


def check_block_call(whole: ForwardPlan, lists: int, call: BlockCall) -> None:
    """CallError unless shapes, dtypes, devices and strides are those of a kind with so many lists for a query;
    ``whole`` is the plan of its attention to all keys."""
    kind, q, blocks = whole.kind, call.q, call.blocks
    check_sink(kind, call.sink)
    given = {"sink": call.sink} if kind.sink else {}
    check_call(whole, q, call.k, call.v, {**given, "offsets": call.offsets, "key_range": call.key_range})
    if blocks is None:
        return
    batch, _, seq_q, _ = q.shape
    if blocks.dim() != 4 or tuple(blocks.shape[:3]) != (batch, lists, seq_q) or blocks.dtype != torch.int32:
        raise CallError(
            f"blocks is {tuple(blocks.shape)} of {blocks.dtype}; ({batch}, {lists}, {seq_q}, blocks of a query) of "
            "int32 is needed"
        )
    if blocks.device != q.device:
        raise CallError(f"blocks is on {blocks.device} and q on {q.device}; one device is needed")

"""FlashMLA's sparse prefill by attngen's kernel over listed keys: ``from attngen.compat.flash_mla import ...``.

Names, shapes and conventions are those of flash_mla/flash_mla_interface.py in github.com/deepseek-ai/FlashMLA.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from attngen.errors import CallError
from attngen.op.gathered import why_not_gathered_by_hopper
from attngen.op.kernels import Launchers
from attngen.plan.gathered import plan_gathered
from attngen.spec.model import HeadDim, Heads, Kind, Latent

RANK = 512  # columns of a value
MAX_KEPT_KINDS = 64  # launchers of so many head counts, widths and scales
DTYPES = {torch.bfloat16: "bfloat16", torch.float16: "float16"}


def flash_mla_sparse_fwd(
    q: torch.Tensor,
    kv: torch.Tensor,
    indices: torch.Tensor,
    sm_scale: float,
    d_v: int = RANK,
    attn_sink: torch.Tensor | None = None,
    topk_length: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attention of every query token over the key/value tokens that its list names (DeepSeek sparse attention).

    Arguments:
        q: (s_q, h_q, d_qk), bfloat16 or float16; d_qk is 512 and a rope of any width, 576 of DeepSeek-V3.2.
        kv: (s_kv, 1, d_qk), of q's dtype: a token's key, whose first d_v columns are its value.
        indices: (s_q, 1, topk), int32, any topk: the tokens that a query sees, none twice. An entry that is negative,
            or s_kv and more, is no token.
        sm_scale: what q . k is multiplied by to be a logit.
        d_v: 512.
        attn_sink: (h_q,), float32, a logit in natural-log units: out is multiplied by exp(lse) / (exp(lse) +
            exp(attn_sink)). -inf changes nothing, +inf makes out 0; lse and max_logits are without it.
        topk_length: (s_q,), int32: how many entries of each list count, from its first.

    Returns (out, max_logits, lse): out (s_q, h_q, d_v) of q's dtype; max_logits (s_q, h_q), float32, the greatest
    sm_scale * q . k of each row; lse (s_q, h_q), float32, the natural logarithm of the sum of exp of them. Where a
    query sees no token, out is 0, max_logits -inf, and lse +inf, as FlashMLA has it.

    Raises CallError where a shape, a dtype or a device is none of these. No gradients are computed.
    """
    if d_v != RANK:
        raise CallError(f"d_v is {d_v}; {RANK} is needed")
    _check_shapes(q, kv, indices, attn_sink, topk_length)
    launchers = _launchers(q.shape[1], q.shape[2], float(sm_scale), DTYPES[q.dtype], attn_sink is not None)
    queries, keys = q.unsqueeze(0).transpose(1, 2), kv.unsqueeze(0).transpose(1, 2)
    gluon = q.is_cuda and why_not_gathered_by_hopper(queries, keys) is None
    with torch.no_grad():
        out, lse, maxima = launchers.at(1, q.shape[0], kv.shape[0], gluon=gluon)(
            queries,
            keys,
            None,
            indices.transpose(0, 1),
            sink=None if attn_sink is None else attn_sink.contiguous(),
            topk_length=None if topk_length is None else topk_length.unsqueeze(0).contiguous(),
        )
        lse = lse[0].t().contiguous()
        return out[0].transpose(0, 1), maxima[0].t().contiguous(), lse.masked_fill_(lse == -torch.inf, torch.inf)


@lru_cache(MAX_KEPT_KINDS)
def _launchers(heads: int, width: int, scale: float, dtype: str, sink: bool) -> Launchers:
    latent = Latent(RANK, width - RANK)
    fields: dict[str, Any] = {"dtype": dtype, "scale": scale, "latent": latent, "sink": sink}
    kind = Kind("flash_mla", Heads(heads, 1), HeadDim(width, RANK), **fields)
    return Launchers(plan_gathered(kind, maxima=True))


def _check_shapes(
    q: torch.Tensor,
    kv: torch.Tensor,
    indices: torch.Tensor,
    attn_sink: torch.Tensor | None,
    topk_length: torch.Tensor | None,
) -> None:
    """CallError for what the launcher, which sees other shapes, could not name."""
    if q.dim() != 3 or q.shape[1] == 0 or q.shape[2] < RANK or q.dtype not in DTYPES:
        held = f"{tuple(q.shape)} of {q.dtype}"
        raise CallError(f"q is {held}; (s_q, h_q, {RANK} and more) of bfloat16 or float16 is needed")
    s_q, heads, width = q.shape
    right = kv.dim() == 3 and kv.shape[1:] == (1, width)
    expected = [("kv", kv, f"(s_kv, 1, {width})", right, q.dtype)]
    right = indices.dim() == 3 and indices.shape[:2] == (s_q, 1)
    expected.append(("indices", indices, f"({s_q}, 1, topk)", right, torch.int32))
    if attn_sink is not None:
        right = attn_sink.shape == (heads,)
        expected.append(("attn_sink", attn_sink, f"({heads},)", right, torch.float32))
    if topk_length is not None:
        right = topk_length.shape == (s_q,)
        expected.append(("topk_length", topk_length, f"({s_q},)", right, torch.int32))
    for name, tensor, shape, right, dtype in expected:
        if not right or tensor.dtype != dtype:
            held = f"{tuple(tensor.shape)} of {tensor.dtype}"
            raise CallError(f"{name} is {held}; {shape} of {dtype} is needed")
        if tensor.device != q.device:
            raise CallError(f"{name} is on {tensor.device} and q on {q.device}; one device is needed")

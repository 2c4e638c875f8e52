"""Attention as plain PyTorch computes it in the kind's own dtype: the yardstick of a kernel's error.

Plain scores take scaled_dot_product_attention's math backend, told to keep its intermediate results in the dtype
of its inputs; it would compute in float32 otherwise. What that backend lacks (softcap, ALiBi, score expressions,
sinks) is written out with the same roundings: scores, probabilities and the result are rounded to the dtype. Of FP8,
probabilities are rounded to e4m3, as multiples of 2^-8 of a row's largest, and the result to bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from attngen.reference import dequantised, listed, scored, visible
from attngen.spec.model import Kind

ROWS = 1024  # queries at a time, so that long sequences fit in memory
NOT_MASK = ("q", "k", "v", "q_scale", "k_scale", "v_scale", "sink", "alibi_slopes", "indices")


def same_dtype(kind: Kind, inputs: dict[str, Any]) -> torch.Tensor:
    """out (batch, heads, seq_q, v dim) in the kind's dtype of results, 0 where a row sees no key."""
    if kind.quantised:
        inputs = {**inputs, **{name: dequantised(inputs, name, torch.float32) for name in "qkv"}}
    q, v = inputs["q"], inputs["v"]
    batch, heads, seq_q, _ = q.shape
    out = q.new_zeros(batch, heads, seq_q, v.shape[-1], dtype=getattr(torch, kind.out_dtype))
    plain = kind.softcap is None and not kind.alibi and kind.score is None and not kind.sink
    attend = _math_backend if plain and not kind.quantised else _written_out
    with _rounded_math():
        for b in range(batch):
            for h in range(heads):
                for start in range(0, seq_q, ROWS):
                    rows = slice(start, min(start + ROWS, seq_q))
                    seen, first = _seen(kind, inputs, b, h, rows)
                    part = attend(kind, inputs, b, h, rows, seen, first)
                    out[b, h, rows] = part.masked_fill(~seen.any(-1, keepdim=True), 0.0)
    return out


def _seen(kind: Kind, inputs: dict[str, Any], b: int, h: int, rows: slice) -> tuple[torch.Tensor, int]:
    """Which keys these queries see, and the position of the first of them."""
    q, seq_k = inputs["q"], inputs["k"].shape[2]
    first = rows.start + (int(inputs["offsets"][b]) if "offsets" in inputs else seq_k - q.shape[2])
    offsets = torch.full((q.shape[0],), first, dtype=torch.int32)
    given = {name: value for name, value in inputs.items() if name not in (*NOT_MASK, "offsets")}
    seen = visible(kind, rows.stop - rows.start, seq_k, head=h, batch=b, offsets=offsets, device=q.device, **given)
    if "indices" in inputs:
        lists = inputs["indices"]
        place = h * lists.shape[1] // q.shape[1] if lists.dim() == 4 else 0
        seen &= listed(lists[b, ..., rows, :], place, seq_k)
    return seen, first


def _math_backend(
    kind: Kind, inputs: dict[str, Any], b: int, h: int, rows: slice, seen: torch.Tensor, first: int
) -> torch.Tensor:
    kv = h // kind.heads.group
    q, k, v = inputs["q"][b, h, rows], inputs["k"][b, kv], inputs["v"][b, kv]
    with sdpa_kernel(SDPBackend.MATH):
        out = scaled_dot_product_attention(q[None, None], k[None, None], v[None, None], seen, scale=kind.scale)
    return out[0, 0]


def _written_out(
    kind: Kind, inputs: dict[str, Any], b: int, h: int, rows: slice, seen: torch.Tensor, first: int
) -> torch.Tensor:
    kv = h // kind.heads.group
    q, k, v = inputs["q"][b, h, rows], inputs["k"][b, kv], inputs["v"][b, kv]
    s = (q @ k.T).float() * kind.scale
    i = torch.arange(first, first + s.shape[0], device=s.device)[:, None]
    j = torch.arange(s.shape[1], device=s.device)[None, :]
    named = {name: value for name, value in inputs.items() if name not in NOT_MASK}
    s = scored(kind, s, {"i": i, "j": j, "h": h, "b": b}, inputs.get("alibi_slopes"), named)
    s = s.to(q.dtype).float().masked_fill(~seen, float("-inf"))
    total = torch.logsumexp(s, -1)
    if kind.sink:
        total = torch.logaddexp(total, inputs["sink"][h].float())
    if kind.quantised:
        largest = s.amax(-1, keepdim=True)
        p = (torch.exp(s - largest).masked_fill(~seen, 0.0) * 2**8).to(torch.float8_e4m3fn).float()
        return p @ v * torch.exp(largest - total[:, None]) / 2**8
    p = torch.exp(s - total[:, None]).masked_fill(~seen, 0.0).to(v.dtype)
    return p @ v


@contextmanager
def _rounded_math() -> Iterator[None]:
    """The math backend with intermediate results in float16 or bfloat16, as its inputs are."""
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)

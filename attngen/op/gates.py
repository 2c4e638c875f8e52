"""The sum of several results of attention, each times its gate."""

from __future__ import annotations

import torch


def gated_sum(results: list[torch.Tensor], gates: torch.Tensor) -> torch.Tensor:
    """The sum of gate * result, in float32 until it is rounded once to the results' dtype.

    results: (batch, heads, seq_q, dim) each; gates: (batch, heads, seq_q, results), any floating dtype.
    """
    total = results[0].float() * gates[..., 0, None]
    for n, result in enumerate(results[1:], 1):
        total = torch.addcmul(total, result.float(), gates[..., n, None].float())
    return total.to(results[0].dtype)

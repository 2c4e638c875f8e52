"""Values turned before an FP8 kernel for Hopper runs, into memory that the call allocates."""

from __future__ import annotations

import torch
import triton

from attngen.op.bound import Bound
from attngen.plan.boxes import KEYS_TURNED
from attngen.plan.forward import ForwardPlan
from attngen.source import render_turning
from attngen.source.render import TURNED_BLOCK


def turned_shape(v: torch.Tensor) -> tuple[int, int, int, int]:
    """Of turned values: (batch, kv heads, v dim, keys in whole groups)."""
    batch, heads, keys, dim = v.shape
    return batch, heads, dim, -(-keys // KEYS_TURNED) * KEYS_TURNED


class Turning:
    """The launch that turns values of one shape and strides."""

    def __init__(self, plan: ForwardPlan, v: torch.Tensor) -> None:
        self.shape = turned_shape(v)
        batch, heads, _, keys = self.shape
        # The stride of a single element is never used.
        values = {f"stride_v{axis}": v.stride(n) if v.shape[n] > 1 else 0 for n, axis in enumerate("bhs")}
        self.bound = Bound(
            render_turning(plan),
            v.device,
            batch * heads * triton.cdiv(keys, TURNED_BLOCK),
            values | {"kv_heads": heads, "seq_k": v.shape[2], "seq_turned": keys},
            {"v_ptr": 0, "turned_ptr": 1, "key_range_ptr": 2},
        )

    def __call__(self, v: torch.Tensor, key_range: torch.Tensor | None) -> torch.Tensor:
        """Values turned, on the current stream."""
        turned = torch.empty(self.shape, dtype=v.dtype, device=v.device)
        self.bound(v.view(torch.uint8), turned.view(torch.uint8), key_range)
        return turned

"""Values turned before an FP8 kernel for Hopper runs, into memory that the call allocates."""

from __future__ import annotations

from typing import Any

import torch
import triton

from attngen.op.direct import Direct, direct_launch
from attngen.plan.boxes import KEYS_TURNED
from attngen.plan.forward import ForwardPlan
from attngen.source import load_source, render_turning
from attngen.source.render import TURNED_BLOCK

NUM_WARPS = 8


def turned_shape(v: torch.Tensor) -> tuple[int, int, int, int]:
    """Of turned values: (batch, kv heads, v dim, keys in whole groups)."""
    batch, heads, keys, dim = v.shape
    return batch, heads, dim, -(-keys // KEYS_TURNED) * KEYS_TURNED


class Turning:
    """The launch that turns values of one shape and strides."""

    def __init__(self, plan: ForwardPlan, v: torch.Tensor) -> None:
        self.source = render_turning(plan)
        self.function = load_source(self.source)
        self.compiled: Any = None
        self.shape = turned_shape(v)
        batch, heads, _, keys = self.shape
        self.grid = batch * heads * triton.cdiv(keys, TURNED_BLOCK)
        # The stride of a single element is never used.
        strides = [v.stride(n) if v.shape[n] > 1 else 0 for n in range(3)]
        self.numbers = [*strides, heads, v.shape[2], keys]
        self._direct: Direct | None = None

    def __call__(self, v: torch.Tensor, key_range: torch.Tensor | None, *, stream: int | None) -> torch.Tensor:
        """Values turned on a stream of the current device; on the current stream, by Triton's front end, if None."""
        turned = torch.empty(self.shape, dtype=v.dtype, device=v.device)
        direct = self._direct
        if stream is None or direct is None:
            tensors = (v.view(torch.uint8), turned.view(torch.uint8), key_range)
            self.compiled = self.function[(self.grid,)](*tensors, *self.numbers, num_warps=NUM_WARPS)
            self._direct = direct_launch(self.compiled, self.grid, [None, None, None, *self.numbers])
            return turned
        arguments = direct.arguments()
        arguments[0], arguments[1] = v.data_ptr(), turned.data_ptr()
        arguments[2] = None if key_range is None else key_range.data_ptr()
        direct(stream, arguments)
        return turned

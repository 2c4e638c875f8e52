"""What Triton's interpreter rounds wrongly, put right: to FP8 it loses carries and subnormals, to bfloat16 it cuts.

GPUs round to the nearest, as PyTorch does.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch


@cache
def repair_interpreter() -> None:
    """Have this process's interpreter round float32 to FP8 and bfloat16 as PyTorch does."""
    import triton.language as tl
    from triton.runtime import interpreter

    convert = interpreter._convert_float
    repaired = {tl.float8e4nv: (torch.float8_e4m3fn, torch.uint8), tl.bfloat16: (torch.bfloat16, torch.uint16)}

    def rounded(values: np.ndarray, source: Any, target: Any, mode: Any) -> np.ndarray:
        if source != tl.float32 or target not in repaired:
            return convert(values, source, target, mode)
        dtype, bits = repaired[target]
        return torch.from_numpy(np.ascontiguousarray(values)).to(dtype).view(bits).numpy()

    interpreter._convert_float = rounded

"""How far rounding can take a right kernel from the exact result: bounds derived from dtypes and lengths.

u16 is half a unit in the last place of the kind's 16-bit dtype, by which probabilities and the result are rounded;
u32 is float32's. Scores are sums of exact products in float32, taken 16 at a time by tensor cores, whose additions
are truncated rather than rounded, so each costs up to 2 u32 of the largest partial sum.
"""

from __future__ import annotations

from typing import Any

import torch

from attngen import reference
from attngen.spec.model import Kind

U32 = 2.0**-24
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": U32}
SMALLEST = {"float16": 2.0**-25, "bfloat16": 0.0, "float32": 0.0}  # half of the least probability that is not zero
TENSOR_CORE_DEPTH = 16  # products that are added in one step
OTHER_STEPS = 8  # roundings of a score and of lse beside the product's: scale, shift, exp2, log2, sums
TANH = 2.0**-20  # relative error allowed to the kernel's tanh


def lse_bound(kind: Kind, inputs: dict[str, Any], lse: torch.Tensor) -> float:
    """The largest error of lse that float32 arithmetic explains."""
    width = inputs["q"].shape[-1]
    steps = width if kind.dtype == "float32" else -(-width // TENSOR_CORE_DEPTH)
    # |q . k| <= |q| |k|, also for the sums of absolute values that bound the rounding of a product.
    product = float(inputs["q"].double().norm(dim=-1).max() * inputs["k"].double().norm(dim=-1).max()) * kind.scale
    sizes = lse[torch.isfinite(lse)].abs()
    largest = max(product, float(sizes.max()) if sizes.numel() else 0.0, 1.0)
    bound = 2 * U32 * ((steps + OTHER_STEPS) * product + OTHER_STEPS * largest)
    if kind.alibi:
        reach = inputs["q"].shape[2] + inputs["k"].shape[2]
        bound += 4 * U32 * float(inputs["alibi_slopes"].abs().max()) * reach
    if kind.score is not None:
        bound += 4 * OTHER_STEPS * U32 * largest
    return bound + (TANH * kind.softcap if kind.softcap is not None else 0.0)


def element_bound(kind: Kind, inputs: dict[str, Any], out: torch.Tensor, lse_error: float) -> torch.Tensor:
    """For each element of out, the largest error that rounding explains.

    Each probability is off by u16 of itself and by what its score is off; the result is rounded once more. What
    those errors weigh is the attention over \\|v\\|.
    """
    weights = reference.attention(kind, **{**inputs, "v": inputs["v"].abs()})[0]
    unit = UNIT[kind.dtype]
    lost = SMALLEST[kind.dtype] * float(inputs["v"].double().abs().sum(2).max())
    return (unit + 2 * lse_error + OTHER_STEPS * U32) * weights + (unit + OTHER_STEPS * U32) * out.abs() + lost

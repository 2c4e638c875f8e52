"""How far rounding can take a right kernel from the exact result: bounds derived from dtypes and lengths.

u16 is half a unit in the last place of the kind's 16-bit dtype, by which probabilities and the result are rounded;
u32 is float32's. Of FP8, probabilities are rounded to e4m3 after a multiplication by 2^8, and the result to bfloat16.
Scores are sums of exact products in float32, taken 16 at a time by tensor cores, whose additions are truncated rather
than rounded, so each costs up to 2 u32 of the largest partial sum; Hopper adds FP8 products up 32 at a time, and keeps
13 bits behind the point. An indexer adds its heads up in float32 besides.
"""

from __future__ import annotations

from typing import Any

import torch

from attngen import reference
from attngen.plan.indexer import IndexerPlan
from attngen.reference import dequantised
from attngen.spec.model import Kind

U32 = 2.0**-24
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": U32, "float8_e4m3": 2.0**-4}
# Half of the least probability that is not zero.
SMALLEST = {"float16": 2.0**-25, "bfloat16": 0.0, "float32": 0.0, "float8_e4m3": 2.0**-10 / 2**8}
TENSOR_CORE_DEPTH = {"float16": 16, "bfloat16": 16, "float32": 1, "float8_e4m3": 32}  # products added in one step
FLOAT8_SUMS = 2.0**-14  # half a unit in the last place of such a sum on Hopper
OTHER_STEPS = 8  # roundings of a score and of lse beside the product's: scale, shift, exp2, log2, sums
TANH = 2.0**-20  # relative error allowed to the kernel's tanh


def lse_bound(kind: Kind, inputs: dict[str, Any], lse: torch.Tensor, *, interpreted: bool = False) -> float:
    """The largest error of lse that the arithmetic of tensor cores, or of the interpreter, explains."""
    steps = -(-inputs["q"].shape[-1] // TENSOR_CORE_DEPTH[kind.dtype])
    sums = FLOAT8_SUMS if kind.quantised and not interpreted else U32
    # |q . k| <= |q| |k|, also for the sums of absolute values that bound the rounding of a product.
    longest_q, longest_k = (float(dequantised(inputs, name).norm(dim=-1).max()) for name in "qk")
    product = longest_q * longest_k * kind.scale
    sizes = lse[torch.isfinite(lse)].abs()
    largest = max(product, float(sizes.max()) if sizes.numel() else 0.0, 1.0)
    bound = 2 * sums * steps * product + 2 * U32 * OTHER_STEPS * (product + largest)
    if kind.alibi:
        reach = inputs["q"].shape[2] + inputs["k"].shape[2]
        bound += 4 * U32 * float(inputs["alibi_slopes"].abs().max()) * reach
    if kind.score is not None:
        bound += 4 * OTHER_STEPS * U32 * largest
    return bound + (TANH * kind.softcap if kind.softcap is not None else 0.0)


def element_bound(kind: Kind, inputs: dict[str, Any], out: torch.Tensor, lse_error: float) -> torch.Tensor:
    """For each element of out, the largest error that rounding explains.

    Each probability is off by u16 of itself, u8 in FP8, and by what its score is off; the result is rounded once more.
    What those errors weigh is the attention over \\|v\\|.
    """
    sizes = dequantised(inputs, "v").abs()
    weights = reference.attention(kind, **{**inputs, "v": sizes, "v_scale": None})[0]
    lost = SMALLEST[kind.dtype] * float(sizes.sum(2).max())
    of_weights, of_out = UNIT[kind.dtype] + 2 * lse_error + OTHER_STEPS * U32, UNIT[kind.out_dtype] + OTHER_STEPS * U32
    return of_weights * weights + of_out * out.abs() + lost


def logits_bound(plan: IndexerPlan, sizes: torch.Tensor, *, interpreted: bool = False) -> torch.Tensor:
    """For each logit of an indexer, the largest error that rounding explains.

    ``sizes`` are the logits of absolute values: what bounds every partial sum.
    """
    steps = -(-plan.head_dim // TENSOR_CORE_DEPTH[plan.dtype])
    sums = FLOAT8_SUMS if plan.scaled and not interpreted else U32
    of_out = UNIT["bfloat16"] if plan.logits == "bfloat16" else U32
    return (2 * sums * steps + 2 * U32 * (plan.heads + OTHER_STEPS) + of_out) * sizes

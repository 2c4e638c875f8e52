"""Types of a kernel's run-time parameters, as Triton spells them, for calls with contiguous tensors."""

from __future__ import annotations

from collections.abc import Sequence

from attngen.config import Config
from attngen.plan.boxes import boxes, is_gluon, swizzle_bytes
from attngen.plan.forward import ForwardPlan
from attngen.plan.work import ELEMENT_BYTES

ELEMENTS = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
    "float8_e4m3": "fp8e4nv",
    "int32": "i32",
    "int64": "i64",
}
_WHOLE = ("prefix", "ticket", "cu_seqlens_q", "cu_seqlens_k", "block_count", "block_index", "turns")
WHOLE = tuple(f"{name}_ptr" for name in _WHOLE)
NOTHING = "none"  # of what a call leaves out


def pointer(dtype: str) -> str:
    """To elements of a dtype as the language calls it."""
    return f"*{ELEMENTS[dtype]}"


def descriptor(box: Sequence[int], dtype: str, *, gluon: bool) -> str:
    """Of boxes of a tensor; Gluon's say how a box lies in shared memory."""
    layout = f",{_shared_layout(len(box), box[-1], dtype)}" if gluon else ""
    return f"tensordesc<{ELEMENTS[dtype]}{list(box)}{layout}>"


def forward_types(plan: ForwardPlan, config: Config, names: Sequence[str]) -> tuple[str, ...]:
    """Of the forward kernel's parameters."""
    kind, described = plan.kind, boxes(plan, config)
    scalars = {f"{argument.name}_value" for argument in plan.arguments if argument.shape == "scalar"}
    elements = {"q_ptr": kind.dtype, "k_ptr": kind.dtype, "v_ptr": kind.dtype, "out_ptr": kind.out_dtype}
    elements |= dict.fromkeys(WHOLE, "int32")
    types: list[str] = []
    for name in names:
        if name in ("offsets_ptr", "key_range_ptr"):
            types.append(NOTHING)
        elif name in described:
            tensor, box = described[name]
            held = kind.out_dtype if tensor == "out" else kind.dtype
            types.append(descriptor(box, held, gluon=is_gluon(config)))
        elif name.endswith("_ptr"):
            types.append(pointer(elements.get(name, "float32")))
        else:
            types.append("fp32" if name in scalars else "i32")
    return tuple(types)


def _shared_layout(rank: int, width: int, dtype: str) -> str:
    element = ELEMENT_BYTES[dtype]
    return (
        f"NVMMASharedLayout(swizzle_byte_width={swizzle_bytes(width, element)}, element_bitwidth={8 * element}, "
        f"rank={rank}, transposed=False, fp4_padded=False, cga_layout=[])"
    )

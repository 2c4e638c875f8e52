"""What the template of quantisation is filled with."""

from __future__ import annotations

from typing import Any

from attngen.config import Config
from attngen.plan.quantise import (
    LARGEST,
    LATENT_BYTES,
    LATENT_ROPE,
    LEAST_AMAX,
    PAGE_KEYS,
    QuantisePlan,
)
from attngen.source.elementwise import Assignment
from attngen.source.parameters import Parameter
from attngen.source.types import pointer

ROWS_ARE = {
    "rows": "contiguous rows, and their scales beside them",
    "pages": f"pages of {PAGE_KEYS} keys, and their scales behind them",
    "latent": f"rows of {LATENT_BYTES} bytes: numbers, a scale a group, and {LATENT_ROPE} columns as they were",
}
UNSPECIALISED = ["rows", "size_1", "size_2"]


def quantise_context(plan: QuantisePlan, config: Config) -> dict[str, Any]:
    """For the template, whatever the layout."""
    parameters = _parameters(plan)
    return {
        "entry": "quantise",
        "parameters": parameters,
        "types": tuple(_type(plan, parameter.name) for parameter in parameters),
        "constexprs": ("BLOCK_M",),
        "options": {"num_warps": config["num_warps"], "num_stages": config["num_stages"]},
        "docstring": _docstring(plan),
        "constants": _constants(plan),
        "unspecialised": UNSPECIALISED,
        "plan": plan,
        "dim": plan.head_dim // plan.groups,
        "stages": plan.width.bit_length() - 1,
    }


def _parameters(plan: QuantisePlan) -> list[Parameter]:
    columns = "dim" if plan.layout != "latent" else f"{plan.head_dim + LATENT_ROPE}"
    out = [Parameter("x_ptr", f"[size 0, size 1, size 2, {columns}], {plan.source}")]
    if plan.layout == "rows":
        out += [
            Parameter("out_ptr", "[rows, dim], e4m3, contiguous"),
            Parameter("scale_ptr", "[rows], float32"),
        ]
    else:
        out += [
            Parameter("out_ptr", "the cache, e4m3"),
            Parameter("scale_ptr", "the same bytes, float32"),
        ]
        out += [Parameter("rope_ptr", "the same bytes, bfloat16")] if plan.layout == "latent" else []
        out.append(Parameter("slot_ptr", "[rows], int64: each row's place in the cache; a negative one is left out"))
    out += [Parameter(f"stride_x{n}") for n in range(3)]
    return [*out, Parameter("rows"), Parameter("size_1"), Parameter("size_2")]


def _type(plan: QuantisePlan, name: str) -> str:
    if name == "slot_ptr":
        return "*i64"
    elements = {"x_ptr": plan.source, "out_ptr": "float8_e4m3", "scale_ptr": "float32", "rope_ptr": "bfloat16"}
    return pointer(elements[name]) if name in elements else "i32"


def _docstring(plan: QuantisePlan) -> str:
    rotated = ", rotated by a Hadamard matrix" if plan.rotate else ""
    rounded = ", rounded up to a power of two" if plan.format == "ue8m0" else ""
    return (
        f"Rows of {plan.head_dim} columns{rotated}, as e4m3 with a scale each.\n\n"
        f"A scale is the largest magnitude / {LARGEST:g}{rounded}.\n"
        f"Written as {ROWS_ARE[plan.layout]}."
    )


def _constants(plan: QuantisePlan) -> list[Assignment]:
    out = [Assignment("DIM", str(plan.head_dim // plan.groups), "columns of one scale")]
    if plan.width != plan.head_dim // plan.groups:
        out.append(Assignment("WIDTH", str(plan.width), "columns as they are held"))
    out += [
        Assignment("LARGEST", repr(LARGEST), "of e4m3"),
        Assignment("LEAST_AMAX", repr(LEAST_AMAX), "a row of smaller numbers is scaled as if this were the largest"),
    ]
    if plan.rotate:
        out.append(Assignment("ROTATED_SCALE", repr(plan.head_dim**-0.5), "DIM ** -0.5"))
    if plan.layout == "pages":
        out += [
            Assignment("PAGE_KEYS", str(PAGE_KEYS)),
            Assignment("PAGE_BYTES", str(PAGE_KEYS * (plan.head_dim + 4))),
        ]
    if plan.layout == "latent":
        out += [
            Assignment("GROUPS", str(plan.groups), "of a row"),
            Assignment("ROPE", str(LATENT_ROPE), "columns that are copied"),
            Assignment("ROW_BYTES", str(LATENT_BYTES)),
        ]
    return out

"""What the templates of an indexer's logits are filled with."""

from __future__ import annotations

from typing import Any

from attngen.config import Config
from attngen.plan.hopper import PRODUCER_REGISTERS
from attngen.plan.indexer import IndexerPlan
from attngen.plan.indexer_hopper import IndexerShape
from attngen.problem import next_power_of_two
from attngen.source.elementwise import Assignment
from attngen.source.hopper import FIRST_BARRIER
from attngen.source.parameters import Parameter
from attngen.source.roles import one_loads
from attngen.source.types import descriptor, pointer

UNSPECIALISED = ("k_scale_stride", "batches", "seq_q", "seq_k", "keys_per_item")  # they vary from call to call


def indexer_context(plan: IndexerPlan, config: Config) -> dict[str, Any]:
    """For the template of the config's schedule."""
    hopper = config["schedule"] == "hopper"
    parameters = _parameters(plan, hopper)
    shape = IndexerShape.of(plan, config) if hopper else None
    return {
        "entry": "indexer_logits",
        "parameters": parameters,
        "types": tuple(_type(plan, parameter.name, shape) for parameter in parameters),
        "constexprs": () if hopper else ("BLOCK_Q", "BLOCK_N"),
        "options": _options(config, shape),
        "docstring": _docstring(plan),
        "constants": _sizes(plan) + ([] if shape is None else _constants(shape)),
        "unspecialised": [parameter.name for parameter in parameters if parameter.name in UNSPECIALISED],
        "located": ["batch", "query", "first", "tiles", *(["share_first"] if plan.clean else [])],
        "plan": plan,
        "shape": shape,
        "product_depth": 32 // plan.element_bytes,
        **({} if shape is None else _roles(plan, shape)),
    }


def boxes(plan: IndexerPlan, shape: IndexerShape) -> dict[str, tuple[int, ...]]:
    """For each descriptor, the box in which the copy engine moves its tensor."""
    return {
        "q_desc": (1, shape.queries, plan.padded_heads, plan.width),
        "k_desc": (1, shape.block_n, plan.width),
    }


def _roles(plan: IndexerPlan, shape: IndexerShape) -> dict[str, Any]:
    """What passes from the Hopper kernel to the warp that loads and to the warpgroups that compute, by name."""
    rings = ["q_tiles", "k_tiles", "places", "published", "q_full", "q_free", "k_full"]
    limits = ["key_first_ptr", "key_end_ptr"]
    sizes = ["batches", "seq_q", "seq_k", "keys_per_item"]
    producer = ["q_desc", "k_desc", *rings, *limits, *sizes]
    consumer = [*rings, *(["k_scale_ptr"] if plan.scaled else []), "w_ptr", *(limits if plan.clean else []), "out_ptr"]
    consumer += [*(["k_scale_stride"] if plan.scaled else []), "stride_ob", "stride_os", *sizes]
    return {
        "sizes": sizes,
        "producer_names": producer,
        "consumer_names": consumer,
        "partitions": one_loads(consumer, shape.warpgroups, producer),
    }


def _parameters(plan: IndexerPlan, hopper: bool) -> list[Parameter]:
    if hopper:
        out = [
            Parameter("q_desc", "[batch, seq_q, heads, dim], boxes of BLOCK_Q x PADDED_HEADS x WIDTH"),
            Parameter("k_desc", "[batch, seq_k, dim], boxes of BLOCK_N x WIDTH"),
        ]
    else:
        out = [Parameter("q_ptr", "[batch, seq_q, heads, dim], contiguous"), Parameter("k_ptr", "[batch, seq_k, dim]")]
    if plan.scaled:
        out.append(Parameter("k_scale_ptr", "[batch, seq_k], float32"))
    out += [
        Parameter("w_ptr", "[batch, seq_q, heads], float32, contiguous: every factor of a query's head"),
        Parameter("key_first_ptr", "[batch, seq_q], int32: the first key that a query may see"),
        Parameter("key_end_ptr", "[batch, seq_q], int32: and the one past the last"),
        Parameter("out_ptr", f"[batch, seq_q, seq_k], {plan.logits}, rows a multiple of 16 elements apart"),
    ]
    out += [] if hopper else [Parameter("stride_kb"), Parameter("stride_ks")]
    out += [Parameter("k_scale_stride", "between sequences")] if plan.scaled else []
    out += [
        Parameter("stride_ob"),
        Parameter("stride_os"),
        Parameter("batches"),
        Parameter("seq_q"),
        Parameter("seq_k"),
        Parameter("keys_per_item", "a multiple of BLOCK_N"),
    ]
    return out


def _type(plan: IndexerPlan, name: str, shape: IndexerShape | None) -> str:
    if name.endswith("_desc"):
        assert shape is not None
        return descriptor(boxes(plan, shape)[name], plan.dtype, gluon=True)
    if not name.endswith("_ptr"):
        return "i32"
    elements: dict[str, str] = {"q_ptr": plan.dtype, "k_ptr": plan.dtype, "out_ptr": plan.logits}
    elements |= {"key_first_ptr": "int32", "key_end_ptr": "int32"}
    return pointer(elements.get(name, "float32"))


def _options(config: Config, shape: IndexerShape | None) -> dict[str, Any]:
    if shape is not None:
        return {"num_warps": 4, "maxnreg": shape.entry_registers}
    return {"num_warps": config["num_warps"], "num_stages": config["num_stages"]}


def _docstring(plan: IndexerPlan) -> str:
    outside = "-inf" if plan.clean else "left as they were, or hold anything"
    return (
        f"Logits of a lightning indexer: {plan.heads} heads of {plan.head_dim} columns in {plan.dtype}, logits in "
        f"{plan.logits}.\n\n"
        f"I[t, s] = {'k_scale[s] * ' if plan.scaled else ''}sum over heads h of w[t, h] * relu(q[t, h] . k[s]), for "
        "key_first[t] <= s < key_end[t].\n"
        f"Logits of other keys are {outside}."
    )


def _sizes(plan: IndexerPlan) -> list[Assignment]:
    return [
        Assignment("HEADS", str(plan.heads)),
        Assignment("PADDED_HEADS", str(plan.padded_heads), "those past the last are zeros"),
        Assignment("HEAD_DIM", str(plan.head_dim)),
        Assignment("WIDTH", str(plan.width), "columns as they are held"),
        Assignment("NO_KEY", str(2**31 - 1), "past every key"),
    ]


def _constants(shape: IndexerShape) -> list[Assignment]:
    consumers = shape.warpgroups
    return [
        Assignment("WARPGROUPS", str(consumers), "that compute"),
        Assignment("BLOCK_Q", str(shape.queries), "queries of a warpgroup"),
        Assignment("QUERIES", str(next_power_of_two(shape.block_q)), "of a program, and some to spare"),
        Assignment("COLUMNS", str(shape.columns), "of a product: BLOCK_Q queries of PADDED_HEADS heads"),
        Assignment("BLOCK_N", str(shape.block_n), "keys of a tile"),
        Assignment("STAGES", str(shape.stages), "tiles of keys in shared memory"),
        Assignment("Q_BUFFERS", str(shape.q_buffers), "items whose queries are in shared memory"),
        Assignment("PARTIES", str(128 * consumers + 32), "threads that meet where a tile of keys is given back"),
        Assignment("K_FREE", str(FIRST_BARRIER), "named barriers, one a slot"),
        Assignment("CONSUMER_REGISTERS", str(shape.consumer_registers), "of a thread"),
        Assignment("PRODUCER_REGISTERS", str(PRODUCER_REGISTERS)),
    ]

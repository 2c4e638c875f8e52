"""The arguments of a launch: all but the pointers, which change from call to call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from attngen.config import Config
from attngen.errors import CallError
from attngen.op.checks import keywords_of
from attngen.op.descriptor import Descriptor
from attngen.op.turned import turned_shape
from attngen.plan.attention import AttentionPlan
from attngen.plan.boxes import boxes, is_gluon, is_turned
from attngen.plan.forward import ForwardPlan
from attngen.plan.hopper_window import HopperWindowShape

MAX_GRID = 2**31 - 1
HEADS_DIM, SEQUENCE_DIM = 1, 2


def empty_outputs(q: torch.Tensor, v_dim: int, dtype: torch.dtype | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Uninitialised out, laid out like q, in its or another dtype, and lse."""
    return empty_rows(q, v_dim, dtype), q.new_empty(q.shape[:3], dtype=torch.float32)


def empty_rows(like: torch.Tensor, dim: int | None = None, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Uninitialised (batch, heads, sequence, ``dim`` or its dim): heads before sequence, or after it, as its strides
    have them."""
    batch, heads, length, own = like.shape
    dim = own if dim is None else dim
    if like.stride(HEADS_DIM) < like.stride(SEQUENCE_DIM) and length > 1:
        return like.new_empty((batch, length, heads, dim), dtype=dtype).transpose(1, 2)
    return like.new_empty((batch, heads, length, dim), dtype=dtype)


def tile_count(plan: ForwardPlan, config: Config, q: torch.Tensor, documents: int | None = None) -> int:
    """Tiles of queries, of packed documents room for them: the programs of a launch where each takes one."""
    batch, heads, seq_q, _ = q.shape
    block_m, pack = int(config["BLOCK_M"] or 0), int(config.get("PACK_HEADS") or 1)
    if config["schedule"] == "hopper_window":
        programs = HopperWindowShape.of(plan, config).programs(batch, heads // plan.kind.heads.group, seq_q)
    elif config["schedule"] == "window":
        programs = tiles_in(seq_q, block_m, documents) * batch * (heads // plan.kind.heads.group)
    else:
        programs = tiles_in(seq_q, block_m // pack, documents) * batch * (heads // pack)
    if programs > MAX_GRID:
        raise CallError(f"{programs} programs are more than a launch can have ({MAX_GRID}); split the batch")
    return programs


def tiles_in(length: int, block: int, documents: int | None = None) -> int:
    """Tiles of a sequence; or of so many packed documents and what is after them, however long each is."""
    return -(-length // block) if documents is None else length // block + documents + 1


def document_count(plan: AttentionPlan, extras: Mapping[str, Any]) -> int | None:
    """Packed documents of a call with these keywords; None for kinds that have none."""
    return len(extras["cu_seqlens_q"]) - 1 if plan.kind.documents else None


def length_values(plan: AttentionPlan, q: torch.Tensor, k: torch.Tensor, documents: int | None) -> dict[str, Any]:
    """How many heads, queries and keys there are, by the kernel's parameters."""
    sides = ("seq_q", "seq_k") if documents is None else ("tokens_q", "tokens_k")
    return {"heads": q.shape[1], sides[0]: q.shape[2], sides[1]: k.shape[2], "documents": documents}


def list_values(index: torch.Tensor | None) -> dict[str, Any]:
    """How lists of blocks lie, by the kernel's parameters."""
    if index is None:
        return {}
    batch, heads, lists, entries = index.shape
    return {
        "lists_b": heads if batch > 1 else 0,
        "lists_h": 1 if heads > 1 else 0,
        "lists": lists,
        "entries": entries,
    }


def stride_values(word: str, tensor: torch.Tensor) -> dict[str, int]:
    """The strides of a tensor whose word in a stride's name is ``word``, by the kernel's parameters. That of a single
    element is never used; 0 keeps it from asking for a compilation of its own."""
    return {f"stride_{word}{axis}": tensor.stride(n) if tensor.shape[n] > 1 else 0 for n, axis in enumerate("bhs")}


def read_values(name: str, tensor: torch.Tensor) -> dict[str, int]:
    """How a tensor lies that expressions read, by the kernel's parameters."""
    sizes = {f"{name}_size_{n}": size for n, size in enumerate(tensor.shape)}
    return sizes | {f"{name}_stride_{n}": stride for n, stride in enumerate(tensor.stride())}


def pointer_parameters(plan: ForwardPlan, config: Config) -> list[tuple[int, str]]:
    """(index into q, k, v, extras, out, lse, turned values; parameter) of every tensor that a launch passes."""
    extras = keywords_of(plan)
    index = {"q": 0, "k": 1, "v": 2, "out": 3 + len(extras)}
    names = [(n, f"{tensor}_ptr") for tensor, n in index.items()]
    index["turned"] = 5 + len(extras)
    names += [(index[tensor], name) for name, (tensor, _) in boxes(plan, config).items()]
    names += [(3 + n, f"{name}_ptr") for n, name in enumerate(extras)]
    return [*names, (4 + len(extras), "lse_ptr")]


def constant_arguments(
    plan: ForwardPlan,
    config: Config,
    parameters: Sequence[str],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    extras: Sequence[Any],
) -> list[Any]:
    """The kernel's arguments with None for every pointer, and descriptors without their base."""
    by_name: Mapping[str, Any] = dict(zip(keywords_of(plan), extras, strict=True))
    documents = document_count(plan, by_name)
    values = length_values(plan, q, k, documents) | list_values(by_name.get("block_index"))
    values |= {"tile_count": tile_count(plan, config, q, documents)}
    values |= {"heads_together": int(config.get("HEADS_TOGETHER") or 1)}
    out, _ = empty_outputs(q, plan.kind.head_dim.v, getattr(torch, plan.kind.out_dtype))
    tensors = {"q": q, "k": k, "v": v, "out": out}
    for name, tensor in tensors.items():
        values |= stride_values(name[0], tensor)
    if is_turned(plan, config):
        tensors["turned"] = torch.empty(turned_shape(v), dtype=v.dtype, device="meta")
    for name, (tensor_name, box) in boxes(plan, config).items():
        values[name] = Descriptor(tensors[tensor_name], box, is_gluon(config))
    for argument in plan.arguments:
        if argument.shape in ("scale", "kv scale"):
            values[f"{argument.name}_stride"] = int(by_name[argument.name].numel() > 1)
        if argument.shape == "tensor":
            values |= read_values(argument.name, by_name[argument.name])
    return [values.get(name) for name in parameters]

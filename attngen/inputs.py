"""Random inputs of a kind: q, k, v and every run-time argument, for verification, tuning and benchmarks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from attngen.op.block_lists import lists_of_table
from attngen.plan.attention import Argument, run_time_arguments
from attngen.plan.work import first_position
from attngen.spec.model import Kind

LARGEST_FLOAT8 = 448.0  # of e4m3
LISTED = 0.4  # of the blocks of keys
TENSOR_SIZE = 64  # of a dimension of a tensor that is read at a computed index: those beyond it are clamped
MOST_ELEMENTS = 2**26  # of such a tensor


def make_inputs(
    kind: Kind,
    batch: int,
    seq_q: int,
    seq_k: int,
    *,
    device: torch.device | str,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    heads: tuple[int, int] | None = None,
    lengths: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Keywords of a call: q, k, v in the kind's dtype (or ``dtype``), then what its spec leaves to run time.

    Of packed documents the batch is one row of tokens, cut into one document more at random places, or into those of
    ``lengths``. ``heads`` replaces the kind's (query, kv) head counts, for checks that need not run them all. What is
    quantised is scaled to the range of its dtype, q and v by head and k as a whole; heads differ in size.
    """
    generator = torch.Generator(device=device).manual_seed(seed)
    dtype = dtype or getattr(torch, kind.torch_dtype)
    query_heads, kv_heads = heads or (kind.heads.query, kind.heads.kv)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=torch.float32)

    inputs: dict[str, Any] = {
        "q": normal(batch, query_heads, seq_q, kind.head_dim.qk),
        "k": normal(batch, kv_heads, seq_k, kind.head_dim.qk),
        "v": normal(batch, kv_heads, seq_k, kind.head_dim.v),
    }
    scales: dict[str, torch.Tensor] = {}
    for name, values in inputs.items():
        if kind.quantised:
            values = values * (0.5 + torch.rand(values.shape[1], 1, 1, generator=generator, device=device))
            values, scales[f"{name}_scale"] = _scaled(values, per_head=name != "k")
        inputs[name] = values.to(dtype)
    if kind.documents:
        inputs = {name: _packed(values) for name, values in inputs.items()}
        for side, total in (("q", batch * seq_q), ("k", batch * seq_k)):
            ends = uneven(total, batch + 1, generator, device) if lengths is None else ends_of(lengths, device)
            inputs[f"cu_seqlens_{side}"] = ends
        batch = len(ends) - 1
    if kind.blocks is not None:
        rows, columns = (-(-length // kind.blocks.size) for length in (seq_q, seq_k))
        table = torch.rand(batch, query_heads, rows, columns, generator=generator, device=device) < LISTED
        inputs |= dict(zip(("block_count", "block_index"), lists_of_table(table), strict=True))
    if kind.compress is not None:
        first = first_position(kind, seq_q, seq_k)
        inputs["offsets"] = torch.full((batch,), first, dtype=torch.int32, device=device)
    for argument in run_time_arguments(kind):
        if argument.name in inputs:
            continue
        if argument.name in scales:
            value: Any = scales[argument.name]
        elif argument.name == "alibi_slopes":
            value = normal(query_heads).abs() * 0.1
        elif argument.shape == "heads":
            value = normal(query_heads)
        elif argument.shape == "batch":
            value = torch.randint(0, seq_k + 1, (batch,), generator=generator, device=device, dtype=torch.int32)
        elif argument.shape == "tensor":
            counts = {"b": batch, "h": query_heads}
            counts |= {} if kind.documents else {"i": seq_k, "j": seq_k}
            value = normal(*_sizes(kind, argument, counts))
            if kind.mask is not None and argument.name in dict(kind.mask.tensors):
                value = value.round()  # few values, so that some are equal
        else:
            value = float(normal(1).abs())
        inputs[argument.name] = value
    return inputs


def _sizes(kind: Kind, argument: Argument, counts: Mapping[str, int]) -> list[int]:
    """The shape of a tensor that expressions read: where it is read at a symbol, as many as that has values, or one
    where the tensor would be too large."""
    places: dict[int, str] = {}  # the symbol with most values, where several read a place
    for name, place, symbol in kind.read_by_symbol:
        if name == argument.name and counts.get(symbol, 0) > counts.get(places.get(place, ""), 0):
            places[place] = symbol
    shape = [max(counts.get(places.get(place, ""), TENSOR_SIZE), 1) for place in range(argument.rank)]
    for place in sorted(places, key=lambda place: places[place] != "i"):
        if math.prod(shape) > MOST_ELEMENTS:
            shape[place] = 1
    return shape


def _packed(values: torch.Tensor) -> torch.Tensor:
    """The sequences of a batch one after the other, a batch of one."""
    batch, heads, length, dim = values.shape
    return values.transpose(1, 2).reshape(1, batch * length, heads, dim).transpose(1, 2)


def ends_of(lengths: Sequence[int], device: torch.device | str) -> torch.Tensor:
    """Where documents of some lengths begin, and where the last one ends."""
    return torch.tensor([0, *lengths], dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)


def uneven(tokens: int, documents: int, generator: torch.Generator, device: torch.device | str) -> torch.Tensor:
    """Where so many documents begin among so many tokens, and where the last one ends: at random, some may be empty."""
    inside = torch.randint(0, tokens + 1, (documents - 1,), generator=generator, device=device).sort().values
    ends = (inside.new_zeros(1), inside, inside.new_full((1,), tokens))
    return torch.cat(ends).to(torch.int32)


def _scaled(values: torch.Tensor, per_head: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Values that fill the range of e4m3, and what to multiply them by to have the given ones."""
    size = values.abs()
    if size.numel() == 0:
        return values, values.new_ones(values.shape[1] if per_head else 1)
    scale = (size.amax((0, 2, 3)) if per_head else size.amax().reshape(1)) / LARGEST_FLOAT8
    return values / scale.reshape(-1, 1, 1), scale

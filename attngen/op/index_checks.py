"""Whether what an indexer selects from fits its kind: one clear error before anything is launched."""

from __future__ import annotations

import torch

from attngen.errors import CallError, one_of
from attngen.op.checks import check_placed, check_tensor
from attngen.plan.quantise import SourceDtype
from attngen.spec.model import Indexer

SOURCES: dict[torch.dtype, SourceDtype] = {
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float32: "float32",
}


def check_index(
    indexer: Indexer,
    index_q: torch.Tensor,
    index_k: torch.Tensor,
    index_weights: torch.Tensor,
    offsets: torch.Tensor | None = None,
    key_range: torch.Tensor | None = None,
) -> None:
    """CallError unless shapes, dtypes and devices are those of the indexer."""
    heads, dim = indexer.heads, indexer.head_dim
    check_tensor("index_q", index_q)
    batch, seq_q = (index_q.shape[0], index_q.shape[2]) if index_q.dim() == 4 else (-1, -1)
    wanted: dict[str, tuple[torch.Tensor, tuple[int, ...], str]] = {  # -1: any
        "index_q": (index_q, (-1, heads, -1, dim), f"(batch, {heads}, seq_q, {dim})"),
        "index_k": (index_k, (batch, -1, dim), f"(batch, seq_k, {dim})"),
        "index_weights": (index_weights, (batch, seq_q, heads), f"(batch, seq_q, {heads})"),
    }
    for name, (tensor, shape, words) in wanted.items():
        check_tensor(name, tensor)
        fits = tensor.dim() == len(shape)
        if not fits or any(n not in (-1, size) for n, size in zip(shape, tensor.shape, strict=True)):
            raise CallError(f"{name} has shape {tuple(tensor.shape)}; {words} is needed")
        if tensor.device != index_q.device:
            raise CallError(f"{name} is on {tensor.device} and index_q on {index_q.device}; one device is needed")
        if tensor.dtype not in SOURCES:
            raise CallError(f"{name} is {tensor.dtype}; {one_of(SOURCES.values())} is needed")
        if name != "index_weights" and tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
            raise CallError(f"{name} has stride {tensor.stride(-1)} in its last dimension; 1 is needed")
    check_placed(batch, index_q.device, offsets, key_range)

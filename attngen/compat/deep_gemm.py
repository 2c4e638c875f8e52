"""DeepGEMM's indexer logits by attngen's kernel: ``from attngen.compat.deep_gemm import fp8_mqa_logits``.

Names, shapes and conventions are those of github.com/deepseek-ai/DeepGEMM.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from attngen import reference
from attngen.errors import CallError
from attngen.op.indexer import describable
from attngen.op.kernels import Launchers
from attngen.plan.indexer import plan_indexer
from attngen.spec.model import HeadDim, Heads, Indexer, Kind, Select

COLUMNS = 256  # rows of logits are a multiple of so many apart
MAX_KEPT_KINDS = 64  # of so many head counts and widths


def fp8_mqa_logits(
    q: torch.Tensor,
    kv: tuple[torch.Tensor, torch.Tensor],
    weights: torch.Tensor,
    cu_seq_len_k_start: torch.Tensor,
    cu_seq_len_k_end: torch.Tensor,
    clean_logits: bool = True,
    max_seqlen_k: int = 0,
) -> torch.Tensor:
    """Logits of a lightning indexer: for each query the sum over heads of weight * relu(q . k), times the key's scale.

    Arguments:
        q: (seq_len, heads, dim), float8_e4m3fn; 8 to 128 heads, dim 32 to 128.
        kv: (seq_len_kv, dim), float8_e4m3fn, and its scales (seq_len_kv,), float32.
        weights: (seq_len, heads), float32, the scales of q among them.
        cu_seq_len_k_start, cu_seq_len_k_end: (seq_len,), int32: the keys of each query, from its first to before its
            end.
        clean_logits: whether other keys have logits of -inf; else they hold anything.
        max_seqlen_k: 0; DeepGEMM's compressed rows are not made.

    Returns (seq_len, seq_len_kv), float32; rows are a multiple of 256 elements apart.
    Raises CallError where a shape, a dtype or a device is none of these. CPU tensors take the float64 reference.
    """
    if max_seqlen_k:
        raise CallError(f"max_seqlen_k is {max_seqlen_k}; 0 is needed: compressed rows are not made")
    k, k_scale = kv
    tensors = {"q": q, "kv[0]": k, "kv[1]": k_scale, "weights": weights}
    tensors |= {"cu_seq_len_k_start": cu_seq_len_k_start, "cu_seq_len_k_end": cu_seq_len_k_end}
    _check(tensors)
    seq_q, seq_k = q.shape[0], k.shape[0]
    bounds = cu_seq_len_k_start[None], cu_seq_len_k_end[None]
    columns = max(-(-seq_k // COLUMNS) * COLUMNS, COLUMNS)
    out = torch.empty(1, seq_q, columns, dtype=torch.float32, device=q.device)
    if q.device.type != "cuda":
        exact = reference.index_scores(q[None].transpose(1, 2), k[None], weights[None], k_scale=k_scale[None])
        j = torch.arange(seq_k, device=q.device)
        unseen = (j < bounds[0][..., None]) | (j >= bounds[1][..., None])
        out[..., :seq_k] = exact.masked_fill_(unseen, -torch.inf)
        return out[0, :, :seq_k]
    launchers = _launchers(q.shape[1], q.shape[2], clean_logits)
    launchers.at(1, seq_q, seq_k, gluon=describable(k[None]))(
        q[None].contiguous(), k[None], weights[None].contiguous(), *bounds, k_scale=k_scale[None], out=out
    )
    return out[0, :, :seq_k]


@lru_cache(MAX_KEPT_KINDS)
def _launchers(heads: int, dim: int, clean: bool) -> Launchers:
    select = Select(top_k=1, indexer=Indexer(heads, dim))
    kind = Kind("deep_gemm", Heads(1, 1), HeadDim(dim, dim), select=select)
    return Launchers(plan_indexer(kind, clean=clean))


def _check(tensors: dict[str, torch.Tensor]) -> None:
    """CallError for what does not fit together, in the words of the caller."""
    q, k = tensors["q"], tensors["kv[0]"]
    if q.dim() != 3 or k.dim() != 2:
        shapes = f"{tuple(q.shape)} and {tuple(k.shape)}"
        raise CallError(f"q and kv[0] are {shapes}; (seq_len, heads, dim) and (seq_len_kv, dim) are needed")
    seq_q, heads, dim = q.shape
    eight, full, whole = torch.float8_e4m3fn, torch.float32, torch.int32
    expected: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "q": ((seq_q, heads, dim), eight),
        "kv[0]": ((k.shape[0], dim), eight),
        "kv[1]": ((k.shape[0],), full),
        "weights": ((seq_q, heads), full),
        "cu_seq_len_k_start": ((seq_q,), whole),
        "cu_seq_len_k_end": ((seq_q,), whole),
    }
    for name, (shape, dtype) in expected.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise CallError(f"{name} is {tuple(tensor.shape)} of {tensor.dtype}; {shape} of {dtype} is needed")
        if tensor.device != q.device:
            raise CallError(f"{name} is on {tensor.device} and q on {q.device}; one device is needed")

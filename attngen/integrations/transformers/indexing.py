"""What an indexer module scores keys by: its own projections, norm, RoPE and cache, and none of its scores."""

from __future__ import annotations

from typing import Any

import torch

from attngen.integrations.transformers.latents import turn

Positions = tuple[torch.Tensor, torch.Tensor]


def index_keys(indexer: Any, hidden: torch.Tensor, positions: Positions, cache: Any, rope: Any) -> torch.Tensor:
    """The indexer's keys of every token so far, (batch, seq_k, dim); those of ``hidden`` are entered into ``cache``."""
    k = _partly_turned(indexer, indexer.k_norm(indexer.wk(hidden)).unsqueeze(2), positions, rope).squeeze(2)
    return k if cache is None else cache.update_indexer(k, indexer.layer_idx)


def index_queries(
    indexer: Any, hidden: torch.Tensor, q_resid: torch.Tensor, positions: Positions, rope: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """The indexer's queries (batch, heads, seq_q, dim) and their weights (batch, seq_q, heads), float32."""
    q = indexer.wq_b(q_resid).unflatten(-1, (indexer.n_heads, indexer.head_dim))
    projected = indexer.weights_proj(hidden.to(indexer.weights_proj.weight.dtype)).float()
    weights = projected * (indexer.n_heads * indexer.head_dim) ** -0.5
    return _partly_turned(indexer, q, positions, rope).transpose(1, 2), weights


def _partly_turned(indexer: Any, x: torch.Tensor, positions: Positions, rope: Any) -> torch.Tensor:
    """(batch, seq, heads, dim), its first columns turned."""
    dim = indexer.qk_rope_head_dim
    return torch.cat([turn(rope, x[..., :dim], positions), x[..., dim:]], -1)

"""Latent attention over selected keys, as DeepSeek-V3.2's and GLM-5's configs describe it."""

from __future__ import annotations

import math
from typing import cast

from attngen.importer.config import ConfigText
from attngen.importer.families import SELECTING
from attngen.spec.fields import MAX_HEAD_DIM, MAX_HEADS, MAX_RANK, MIN_HEAD_DIM
from attngen.spec.kind import IMPLICIT_KIND
from attngen.spec.model import Dtype, HeadDim, Heads, Indexer, IndexerScale, Kind, Latent, Select


def read_latent(config: ConfigText, dtype: str, notes: list[str]) -> Kind:
    """What all kinds of a model share whose heads read keys and values from one latent."""
    if config.get("is_causal") is False:
        raise config.error("is_causal", "is_causal is false for a model that selects keys", "only true can be imported")
    rank = _between(config, "kv_lora_rank", MIN_HEAD_DIM, MAX_RANK)
    rope = config.whole("qk_rope_head_dim", MAX_HEAD_DIM)
    return Kind(
        name=IMPLICIT_KIND,
        heads=Heads(config.whole("num_attention_heads", MAX_HEADS), 1),
        head_dim=HeadDim(rank + rope, rank),
        dtype=cast(Dtype, dtype),
        scale=_scale(config, config.whole("qk_nope_head_dim") + rope, notes),
        causal=True,
        latent=Latent(rank, rope),
    )


def read_select(layer_type: str, config: ConfigText, notes: list[str]) -> Select:
    """How the layers of one type come by their keys: by an indexer, or from the layer before."""
    top_k = config.whole("index_topk")
    if layer_type != SELECTING:
        notes.append("shared layers have no indexer: they attend to the keys that the layer before selected")
        return Select(top_k)
    heads = config.whole("index_n_heads", MAX_HEADS)
    head_dim = _between(config, "index_head_dim", MIN_HEAD_DIM, MAX_HEAD_DIM)
    notes.append(
        "the indexer scores in float8_e4m3 with one scale a token, as the released models do (which rotate queries and "
        "keys first: hadamard); transformers scores unrotated and in full precision"
    )
    return Select(top_k, Indexer(heads, head_dim, "float8_e4m3", IndexerScale(head_dim, "ue8m0")))


def _scale(config: ConfigText, qk: int, notes: list[str]) -> float:
    """Softmax scale for heads ``qk`` wide, times the square of what YaRN multiplies by where a context is stretched."""
    scale = float(qk) ** -0.5
    field = next((name for name in ("rope_scaling", "rope_parameters") if config.get(name)), None)
    if field is None:
        return scale
    rope = config.inside(field)
    if rope is None:
        raise config.wrong(field, "an object with a rope_type")
    rope = rope.with_defaults({})
    if (rope.get("rope_type") or rope.get("type") or "default") == "default" or not rope.get("mscale_all_dim"):
        return scale
    factor, all_dim = rope.positive("factor"), rope.positive("mscale_all_dim")
    mscale = 0.1 * all_dim * math.log(factor) + 1.0 if factor > 1 else 1.0
    scale = scale * mscale * mscale
    notes.append(
        f"{field} factor {factor:g} and mscale_all_dim {all_dim:g} read as scale {scale:g}, {qk}**-0.5 times "
        f"{mscale:g} squared"
    )
    return scale


def _between(config: ConfigText, field: str, low: int, high: int) -> int:
    value = config.whole(field, high)
    if value < low:
        raise config.wrong(field, f"a whole number from {low} to {high}")
    return value

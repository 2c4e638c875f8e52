"""The model families that can be imported: what their configs leave out, and how their numbers are meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from attngen.importer.config import ConfigText

LOCAL, CHUNKED, FULL = "sliding_attention", "chunked_attention", "full_attention"  # transformers' names
SELECTING, SHARING = "indexed_attention", "shared"  # an indexer selects a layer's keys; those of the layer before
INDEXED = (SELECTING, "deepseek_sparse_attention")  # what transformers calls such a layer, from 5.23 and before
INDEXER_TYPES = {"full": SELECTING, "shared": SHARING}
LayerTypes = Callable[[ConfigText, int], list[str]]


def dense(config: ConfigText, layers: int) -> list[str]:
    return [FULL] * layers


def windowed_if_given(config: ConfigText, layers: int) -> list[str]:
    """Mistral: one window for every layer, unless it is null; the model pays no heed to layer_types."""
    return [FULL if config.get("sliding_window") is None else LOCAL] * layers


def alternating(config: ConfigText, layers: int) -> list[str]:
    return [FULL if layer % 2 else LOCAL for layer in range(layers)]


def full_every(period: int | str, place: Literal["first", "last"] = "last") -> LayerTypes:
    """One full layer in each turn, at its beginning or its end; ``period`` is its length, or the field that has it."""

    def types(config: ConfigText, layers: int) -> list[str]:
        turn = period if isinstance(period, int) else config.whole(period)
        full = 0 if place == "first" else turn - 1
        return [FULL if layer % turn == full else LOCAL for layer in range(layers)]

    return types


def full_without_rope(config: ConfigText, layers: int) -> list[str]:
    """Llama 4: the layers without RoPE (a 0 in no_rope_layers) see all, the others their chunk."""
    flags = config.get("no_rope_layers")
    if not flags:
        period = config.whole("no_rope_layer_interval")
        flags = [int((layer + 1) % period != 0) for layer in range(layers)]
    if not isinstance(flags, list) or len(flags) != layers or not all(isinstance(flag, int) for flag in flags):
        raise config.wrong("no_rope_layers", f"{layers} zeros and ones")
    return [CHUNKED if flag else FULL for flag in flags]


def selecting(config: ConfigText, layers: int) -> list[str]:
    """DeepSeek-V3.2: every layer has an indexer."""
    given = config.get("layer_types")
    if given is not None and (not isinstance(given, list) or not set(map(str, given)) <= set(INDEXED)):
        raise config.wrong("layer_types", f"{layers} times {SELECTING}")
    return [SELECTING] * layers


def selecting_or_sharing(config: ConfigText, layers: int) -> list[str]:
    """GLM-5: layers with an indexer, and layers that take the selection of the last one that has."""
    selecting(config, layers)
    field = "indexer_types" if config.get("indexer_types") is not None else "index_topk_pattern"
    given = config.get(field)
    if given is None:
        period, offset = (config.whole(name) for name in ("index_topk_freq", "index_skip_topk_offset"))
        return [SHARING if max(layer - offset + 1, 0) % period else SELECTING for layer in range(layers)]
    letters = isinstance(given, str) and set(given) <= set("FS")
    names = [{"F": "full", "S": "shared"}[letter] for letter in given] if letters else given
    if not isinstance(names, list) or not all(name in INDEXER_TYPES for name in map(str, names)):
        raise config.wrong(field, f"{layers} times {' or '.join(INDEXER_TYPES)}")
    if len(names) != layers:
        remedy = f"{layers} would be right, as num_hidden_layers says"
        raise config.error(field, f"{field} has {len(names)} entries", remedy)
    if INDEXER_TYPES[names[0]] == SHARING:
        raise config.error(
            field, f"{field} begins with a shared layer, which has none before it", "full would be right"
        )
    return [INDEXER_TYPES[name] for name in names]


@dataclass(frozen=True)
class Family:
    """One family of models; ``defaults`` are those of its transformers config class."""

    model_types: tuple[str, ...]
    defaults: Mapping[str, Any]
    layer_types: LayerTypes
    explicit_layer_types: bool = True  # a config's own layer_types come first
    causal: bool = True
    own_head_dim: bool = True  # else always hidden_size / num_attention_heads
    both_ways: bool = False  # use_bidirectional_attention makes a causal model see both ways
    window_field: str = "sliding_window"  # the keys of a causal window, or twice the reach of one that sees both ways
    scale_field: str | None = None  # the score's scale is this field's value to the power -0.5
    softcap_field: str | None = None
    sink: bool = False
    latent: bool = False  # heads read keys and values from one latent, and attend to selected keys
    ignored: Mapping[str, str] = field(default_factory=dict)  # fields the model holds but never uses, and why


def shape(layers: int, hidden: int, heads: int, kv: int | None = None, head_dim: int | None = None) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": head_dim,
    }


def latent(layers: int, heads: int, nope: int, index_heads: int) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": 64,
        "index_topk": 2048,
        "index_n_heads": index_heads,
        "index_head_dim": 128,
    }


FAMILIES = (
    Family(
        ("modernbert",),
        {**shape(22, 768, 12), "local_attention": 128, "global_attn_every_n_layers": 3},
        full_every("global_attn_every_n_layers", "first"),
        causal=False,
        own_head_dim=False,
        window_field="local_attention",
    ),
    Family(
        ("gemma2",),
        {
            **shape(26, 2304, 8, 4, 256),
            "sliding_window": 4096,
            "query_pre_attn_scalar": 256,
            "attn_logit_softcapping": 50.0,
        },
        alternating,
        scale_field="query_pre_attn_scalar",
        softcap_field="attn_logit_softcapping",
    ),
    Family(
        ("gemma3_text", "gemma3"),
        {
            **shape(26, 2304, 8, 4, 256),
            "sliding_window": 4096,
            "sliding_window_pattern": 6,
            "query_pre_attn_scalar": 256,
        },
        full_every("sliding_window_pattern"),
        both_ways=True,
        scale_field="query_pre_attn_scalar",
        ignored={"attn_logit_softcapping": "Gemma 3's attention does not cap its scores"},
    ),
    Family(("gpt_oss",), {**shape(36, 2880, 64, 8, 64), "sliding_window": 128}, alternating, sink=True),
    Family(
        ("mistral",),
        {**shape(32, 4096, 32, 8), "sliding_window": 4096},
        windowed_if_given,
        explicit_layer_types=False,
    ),
    Family(
        ("olmo3",),
        {**shape(32, 4096, 32), "sliding_window": 4096},
        full_every(4),
    ),
    Family(
        ("cohere2",),
        {**shape(40, 8192, 64), "sliding_window": 4096, "sliding_window_pattern": 4},
        full_every("sliding_window_pattern"),
        own_head_dim=False,
    ),
    Family(("llama",), shape(32, 4096, 32), dense, explicit_layer_types=False),
    Family(
        ("llama4_text", "llama4"),
        {**shape(48, 5120, 40, 8, 128), "attention_chunk_size": 8192, "no_rope_layer_interval": 4},
        full_without_rope,
    ),
    Family(("deepseek_v32",), latent(61, 128, 128, 64), selecting, explicit_layer_types=False, latent=True),
    Family(
        ("glm_moe_dsa",),
        {**latent(78, 64, 192, 32), "index_topk_freq": 1, "index_skip_topk_offset": 2},
        selecting_or_sharing,
        explicit_layer_types=False,
        latent=True,
    ),
)
BY_MODEL_TYPE = {model_type: family for family in FAMILIES for model_type in family.model_types}
SUPPORTED = tuple(BY_MODEL_TYPE)

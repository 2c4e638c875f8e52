"""Small models with random weights, one a family, and their hidden states by one attention or another."""

from __future__ import annotations

import functools
import logging

import pytest
import torch
import transformers
from transformers import AutoModel, AutoModelForCausalLM

from attngen.importer import import_config
from attngen.integrations.transformers import register
from attngen.spec import Spec

logging.getLogger("transformers").setLevel(logging.ERROR)

VOCABULARY = 128
LENGTH = 30
WINDOW = 8
SHAPE = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
GROUPED = dict(num_key_value_heads=2, head_dim=16)
GEMMA = dict(**GROUPED, sliding_window=WINDOW, query_pre_attn_scalar=32)

CONFIGS = {
    "modernbert": ("ModernBertConfig", dict(local_attention=2 * WINDOW, cls_token_id=1, sep_token_id=2)),
    "llama": ("LlamaConfig", GROUPED),
    "gemma2": ("Gemma2Config", GEMMA),
    "gemma3": ("Gemma3TextConfig", dict(**GEMMA, num_hidden_layers=6)),
    "mistral": ("MistralConfig", dict(**GROUPED, sliding_window=WINDOW)),
    "gpt_oss": (
        "GptOssConfig",
        dict(**GROUPED, sliding_window=WINDOW, num_local_experts=2, num_experts_per_tok=1),
    ),
    "olmo3": ("Olmo3Config", dict(num_key_value_heads=2, sliding_window=WINDOW)),
    "cohere2": ("Cohere2Config", dict(num_key_value_heads=2, sliding_window=WINDOW)),
    "llama4": (
        "Llama4TextConfig",
        dict(**GROUPED, attention_chunk_size=WINDOW, num_local_experts=2, intermediate_size_mlp=64),
    ),
}
DECODERS = [name for name in CONFIGS if name != "modernbert"]
TOP_K = 8
LATENT = dict(
    num_key_value_heads=4,
    q_lora_rank=32,
    kv_lora_rank=32,
    qk_nope_head_dim=16,
    qk_rope_head_dim=8,
    v_head_dim=16,
    index_n_heads=8,
    index_head_dim=32,
    index_topk=TOP_K,
    moe_intermediate_size=16,
    n_routed_experts=4,
    num_experts_per_tok=2,
    n_group=1,
    topk_group=1,
    first_k_dense_replace=2,
)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, mscale_all_dim=1.0, original_max_position_embeddings=64)
SELECTING = {
    "deepseek_v32": ("DeepseekV32Config", dict(**LATENT, rope_parameters=YARN)),
    "glm_moe_dsa": ("GlmMoeDsaConfig", LATENT),
    "glm_moe_dsa sharing": ("GlmMoeDsaConfig", dict(**LATENT, indexer_types=["full", "shared", "full", "shared"])),
}


def caches(names, often=()) -> list:
    """(model, cache): those to test ``often``, by default each cache with a model of its own; the others seldom."""
    names = list(names)
    often = often or {(names[0], "dynamic"), (names[-1], "static")}
    pairs = [(name, cache) for name in names for cache in ("dynamic", "static")]
    return [pair if pair in often else pytest.param(*pair, marks=pytest.mark.slow) for pair in pairs]


def config(name: str, **changes):
    cls, own = {**CONFIGS, **SELECTING}[name]
    return getattr(transformers, cls)(**{**SHAPE, **own, **changes})


@functools.cache
def spec_of(name: str) -> Spec:
    """As its config is imported."""
    return import_config(config(name).to_dict()).spec


@functools.cache
def attention_of(name: str) -> str:
    """attngen by the spec of a model, registered under a name of its own."""
    return register(spec_of(name), name=f"attngen-{name.replace('_', '-')}")


def made(name: str, **changes):
    torch.manual_seed(0)
    kind = AutoModel if name == "modernbert" else AutoModelForCausalLM
    return kind.from_config(config(name, **changes))


@functools.cache
def model(name: str, device: str = "cpu", dtype: torch.dtype = torch.float32):
    return made(name).eval().to(device, dtype)


def batch(padding: str, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Three rows of tokens, two of them padded on one side, or none."""
    torch.manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (3, LENGTH))
    mask = torch.ones_like(ids)
    if padding == "right":
        mask[1, 20:], mask[2, 5:] = 0, 0
    elif padding == "left":
        mask[1, :10], mask[2, :25] = 0, 0
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


@torch.no_grad()
def hidden_states(model, inputs, attention: str) -> list[torch.Tensor]:
    """Hidden states of the tokens that are not padding, after each layer, in float64."""
    model.set_attn_implementation(attention)
    states = model(**inputs, output_hidden_states=True).hidden_states
    valid = inputs["attention_mask"].bool()
    return [state[valid].double() for state in states]


def difference(states, others) -> float:
    """The largest relative L2 difference of any layer."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(states, others, strict=True))

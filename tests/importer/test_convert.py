"""Imported specs of the released models, the notes that go with them, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from attngen.errors import SpecError, UsageError
from attngen.importer import import_config, load_config
from attngen.spec import dump_spec, load_spec, parse_spec
from attngen.spec.model import Indexer, IndexerScale, Select

EXAMPLES = Path(__file__).parents[2] / "examples"

# what the released config.json files say of attention; those of two Gemmas as sparse as they are
RELEASED = {
    "modernbert-base": {
        "model_type": "modernbert", "torch_dtype": "bfloat16", "num_hidden_layers": 22, "hidden_size": 768,
        "num_attention_heads": 12, "local_attention": 128, "global_attn_every_n_layers": 3,
    },
    "gpt-oss-20b": {
        "model_type": "gpt_oss", "num_hidden_layers": 24, "hidden_size": 2880, "num_attention_heads": 64,
        "num_key_value_heads": 8, "head_dim": 64, "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * 12,
    },
    "gemma-2-9b": {
        "model_type": "gemma2", "torch_dtype": "bfloat16", "num_hidden_layers": 42, "hidden_size": 3584,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "sliding_window": 4096,
        "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0,
    },
    "gemma-3-4b": {
        "model_type": "gemma3", "torch_dtype": "bfloat16", "vision_config": {"num_hidden_layers": 27},
        "text_config": {
            "model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34, "sliding_window": 1024,
        },
    },
    "mistral-7b": {
        "model_type": "mistral", "torch_dtype": "bfloat16", "num_hidden_layers": 32, "hidden_size": 4096,
        "num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": 4096,
    },
    "olmo-3-7b": {
        "model_type": "olmo3", "torch_dtype": "bfloat16", "num_hidden_layers": 32, "hidden_size": 4096,
        "num_attention_heads": 32, "num_key_value_heads": 32, "sliding_window": 4096,
    },
    "command-r7b": {
        "model_type": "cohere2", "torch_dtype": "bfloat16", "num_hidden_layers": 32, "hidden_size": 4096,
        "num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": 4096, "sliding_window_pattern": 4,
    },
    "llama-3.1-8b": {
        "model_type": "llama", "torch_dtype": "bfloat16", "num_hidden_layers": 32, "hidden_size": 4096,
        "num_attention_heads": 32, "num_key_value_heads": 8,
    },
    "llama-4-scout": {
        "model_type": "llama4", "torch_dtype": "bfloat16",
        "text_config": {
            "model_type": "llama4_text", "num_hidden_layers": 48, "hidden_size": 5120, "num_attention_heads": 40,
            "num_key_value_heads": 8, "head_dim": 128, "attention_chunk_size": 8192,
            "no_rope_layers": [1, 1, 1, 0] * 12,
        },
    },
    "smollm2-135m": {
        "model_type": "llama", "torch_dtype": "bfloat16", "num_hidden_layers": 30, "hidden_size": 576,
        "num_attention_heads": 9, "num_key_value_heads": 3,
    },
    "deepseek-v3.2": {
        "architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32", "torch_dtype": "bfloat16",
        "attention_bias": False, "hidden_size": 7168, "num_hidden_layers": 61, "num_nextn_predict_layers": 1,
        "num_attention_heads": 128, "num_key_value_heads": 128, "kv_lora_rank": 512, "q_lora_rank": 1536,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "index_head_dim": 128, "index_n_heads": 64, "index_topk": 2048,
        "quantization_config": {"fmt": "e4m3", "quant_method": "fp8", "scale_fmt": "ue8m0"},
        "rope_scaling": {
            "beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 4096, "type": "yarn",
        },
        "rope_theta": 10000, "max_position_embeddings": 163840,
    },
    "glm-5": {
        "architectures": ["GlmMoeDsaForCausalLM"], "model_type": "glm_moe_dsa", "dtype": "bfloat16",
        "hidden_size": 6144, "num_hidden_layers": 78, "num_attention_heads": 64, "num_key_value_heads": 64,
        "head_dim": 64, "kv_lora_rank": 512, "q_lora_rank": 2048, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64,
        "v_head_dim": 256, "index_head_dim": 128, "index_n_heads": 32, "index_topk": 2048,
        "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_config_gives_the_example_spec(name):
    spec = import_config(RELEASED[name], name).spec
    assert spec == load_spec(EXAMPLES / f"{name}.yaml")
    assert parse_spec(dump_spec(spec)) == spec


@pytest.mark.parametrize(
    ("name", "note"),
    [
        (
            "modernbert-base",
            "local_attention 128 read as |i - j| <= 64: 129 keys, the bidirectional Hugging Face rule",
        ),
        ("gemma-3-4b", "sliding_window 1024 read as i - j < 1024: 1024 keys, the causal Hugging Face rule"),
        ("gemma-2-9b", "query_pre_attn_scalar 256 read as scale 0.0625, its power -0.5"),
        ("gpt-oss-20b", "the config names no dtype that attention is computed in: bfloat16 assumed"),
        ("llama-4-scout", "attention_chunk_size 8192 read as i // 8192 == j // 8192: chunks, not a window"),
        (
            "llama-4-scout",
            "read from text_config: other towers, and images that see both ways, are not part of the spec",
        ),
        (
            "deepseek-v3.2",
            "rope_scaling factor 40 and mscale_all_dim 1 read as scale 0.135234, 192**-0.5 times 1.36889 squared",
        ),
        (
            "glm-5",
            "the indexer scores in float8_e4m3 with one scale a token, as the released models do (which rotate queries "
            "and keys first: hadamard); transformers scores unrotated and in full precision",
        ),
    ],
)
def test_notes_say_how_numbers_were_read(name, note):
    assert note in import_config(RELEASED[name]).notes


def test_a_dense_model_has_no_notes():
    assert import_config(RELEASED["llama-3.1-8b"]).notes == ()


def test_dtype_and_name_are_taken_from_the_config():
    spec = import_config({"model_type": "llama", "dtype": "float16", "_name_or_path": "org/My Model v1.0"}).spec
    assert spec.kind("attention").dtype == "float16"
    assert spec.name == "My-Model-v1.0"
    assert import_config({"model_type": "gpt_oss"}).spec.name == "gpt-oss"


def test_layers_that_are_not_attention_are_external():
    config = {
        "model_type": "olmo3",
        "num_hidden_layers": 3,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    }
    imported = import_config(config)
    assert imported.spec.layer_kinds == ("external", "global", "external")
    assert "layers of type linear_attention are external: no attention is generated for them" in imported.notes
    assert parse_spec(dump_spec(imported.spec)).layer_kinds == imported.spec.layer_kinds


def test_layers_that_share_a_selection():
    """A pattern in letters, and the schedule that it replaces; both give way to the types of a saved config."""
    config = {"model_type": "glm_moe_dsa", "dtype": "bfloat16", "num_hidden_layers": 6}
    imported = import_config({**config, "index_topk_pattern": "FFSSFS"})
    spec = imported.spec
    assert spec.layer_kinds == ("sparse", "sparse", "shared", "shared", "sparse", "shared")
    assert spec.kind("shared") == replace(spec.kind("sparse"), name="shared", select=Select(2048))
    assert spec.kind("sparse").select.indexer == Indexer(32, 128, "float8_e4m3", IndexerScale(128, "ue8m0"))
    assert imported.notes[1:] == (
        "shared layers have no indexer: they attend to the keys that the layer before selected",
    )
    assert parse_spec(dump_spec(spec)) == spec
    scheduled = import_config({**config, "index_topk_freq": 3}).spec
    assert scheduled.layer_kinds == ("sparse", "sparse", "shared", "shared", "sparse", "shared")
    types = ["full", "shared", "full", "full", "full", "shared"]
    saved = import_config({**config, "index_topk_freq": 3, "indexer_types": types}).spec
    assert saved.layer_kinds == tuple({"full": "sparse", "shared": "shared"}[name] for name in types)


SUPPORTED = (
    "modernbert, gemma2, gemma3_text, gemma3, gpt_oss, mistral, olmo3, cohere2, llama, llama4_text, llama4, "
    "deepseek_v32 or glm_moe_dsa"
)
REFUSED = [
    ({}, f"1:1: model_type is missing; {SUPPORTED} would be right"),
    ({"model_type": "mamba"}, f"1:2: model_type is 'mamba'; {SUPPORTED} would be right"),
    ({"model_type": ["llama"]}, f'1:2: model_type is ["llama"]; {SUPPORTED} would be right'),
    (
        {"model_type": "llama", "num_attention_heads": 0},
        "1:25: num_attention_heads is 0; a whole number from 1 to 1024 would be right",
    ),
    (
        {"model_type": "llama", "num_hidden_layers": True},
        "1:25: num_hidden_layers is true; a whole number from 1 to 1024 would be right",
    ),
    (
        {"model_type": "llama", "num_key_value_heads": 5},
        "1:25: num_key_value_heads 5 does not divide num_attention_heads 32; a divisor would be right",
    ),
    ({"model_type": "llama", "head_dim": 512}, "1:25: heads are 512 wide; 16 to 256 is what attngen generates"),
    (
        {"model_type": "olmo3", "layer_types": ["full_attention"]},
        "1:25: layer_types has 1 entries; 32 would be right, as num_hidden_layers says",
    ),
    (
        {"model_type": "olmo3", "num_hidden_layers": 1, "layer_types": ["mamba"]},
        "1:49: layer_types names no attention: mamba; sliding_attention, chunked_attention or full_attention does",
    ),
    (
        {"model_type": "gpt_oss", "sliding_window": None},
        "1:27: sliding_window is null; a whole number from 1 to 2147483647 would be right",
    ),
    (
        {"model_type": "gemma2", "query_pre_attn_scalar": -1},
        "1:26: query_pre_attn_scalar is -1; a finite number above 0 would be right",
    ),
    (
        {"model_type": "gemma2", "use_bidirectional_attention": True},
        "1:26: use_bidirectional_attention is true, and transformers' own mask stays causal all the same; "
        "only Gemma 3 can be imported with it",
    ),
    (
        {"model_type": "deepseek_v32", "kv_lora_rank": 8},
        "1:32: kv_lora_rank is 8; a whole number from 16 to 1024 would be right",
    ),
    (
        {"model_type": "deepseek_v32", "index_topk": None},
        "1:32: index_topk is null; a whole number from 1 to 2147483647 would be right",
    ),
    (
        {"model_type": "deepseek_v32", "is_causal": False},
        "1:32: is_causal is false for a model that selects keys; only true can be imported",
    ),
    (
        {"model_type": "deepseek_v32", "layer_types": ["full_attention"] * 61},
        '1:32: layer_types is ["full_attention", "full_attention", ...; 61 times indexed_attention would be right',
    ),
    (
        {"model_type": "deepseek_v32", "rope_scaling": "yarn"},
        "1:32: rope_scaling is 'yarn'; an object with a rope_type would be right",
    ),
    (
        {"model_type": "deepseek_v32", "rope_scaling": {"type": "yarn", "mscale_all_dim": 1.0, "factor": "40"}},
        "1:88: factor is '40'; a finite number above 0 would be right",
    ),
    (
        {"model_type": "glm_moe_dsa", "num_hidden_layers": 2, "indexer_types": ["full", "half"]},
        '1:55: indexer_types is ["full", "half"]; 2 times full or shared would be right',
    ),
    (
        {"model_type": "glm_moe_dsa", "num_hidden_layers": 2, "index_topk_pattern": "SF"},
        "1:55: index_topk_pattern begins with a shared layer, which has none before it; full would be right",
    ),
    (
        {"model_type": "glm_moe_dsa", "num_hidden_layers": 2, "index_topk_pattern": "F"},
        "1:55: index_topk_pattern has 1 entries; 2 would be right, as num_hidden_layers says",
    ),
]


@pytest.mark.parametrize(("config", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_refusals_point_into_the_file(config, message, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    with pytest.raises(SpecError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}:{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model_type"\n: llama}', "2:3: not valid JSON: Expecting value; JSON is what a config.json holds"),
        ("[]", "1:1: the file holds no object; {...} with a model_type is a config"),
        ("[" * 100_000, "1:1: nested too deep, or with numbers too long; a config is neither"),
    ],
)
def test_files_that_are_no_config(text, message, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}:{message}")


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"config\.json: No such file or directory; the path of a .* is needed"):
        load_config(tmp_path / "config.json")

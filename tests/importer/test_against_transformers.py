"""What is imported is what transformers' own models do: the masks, scales, caps and sinks that their layers receive."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers import CONFIG_MAPPING, AttentionInterface, AttentionMaskInterface, AutoModel  # noqa: E402
from transformers.masking_utils import eager_mask  # noqa: E402

from attngen.importer import import_config  # noqa: E402
from attngen.spec import load_spec  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples"

LENGTH = 23
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 16,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "vocab_size": 50,
    "pad_token_id": 0,
    "max_position_embeddings": 64,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}
EXPERTS = {**GROUPED, "head_dim": 16, "num_local_experts": 2, "intermediate_size_mlp": 16}
CASES = {
    "modernbert": {**SMALL, "local_attention": 8},
    "modernbert-odd": {**SMALL, "local_attention": 9, "global_attn_every_n_layers": 2},
    "gemma2": {**GROUPED, "head_dim": 32, "sliding_window": 5, "query_pre_attn_scalar": 24},
    "gemma2-uncapped": {**GROUPED, "head_dim": 32, "sliding_window": 5, "attn_logit_softcapping": None},
    "gemma3_text": {**GROUPED, "head_dim": 32, "sliding_window": 6, "query_pre_attn_scalar": 48},
    "gemma3_text-pattern": {**GROUPED, "head_dim": 32, "sliding_window": 6, "sliding_window_pattern": 3},
    "gemma3_text-bidirectional": {**GROUPED, "head_dim": 32, "sliding_window": 7, "use_bidirectional_attention": True},
    "gpt_oss": {**GROUPED, "head_dim": 32, "sliding_window": 4, "num_local_experts": 2, "num_experts_per_tok": 1},
    "mistral": {**GROUPED, "sliding_window": 9},
    "mistral-dense": {**GROUPED, "sliding_window": None},
    "mistral-encoder": {**GROUPED, "sliding_window": 3, "is_causal": False},
    "olmo3": {**GROUPED, "sliding_window": 6},
    "olmo3-types": {**GROUPED, "sliding_window": 6, "layer_types": ["full_attention"] * 3 + ["sliding_attention"] * 4},
    "cohere2": {**GROUPED, "sliding_window": 6},
    "cohere2-pattern": {**GROUPED, "sliding_window": 6, "sliding_window_pattern": 2},
    "llama": GROUPED,
    "llama4_text": {**EXPERTS, "attention_chunk_size": 5},
    "llama4_text-interval": {**EXPERTS, "attention_chunk_size": 5, "no_rope_layer_interval": 2},
}  # fmt: skip
SEEN: dict[int, dict] = {}


def record(module, query, key, value, attention_mask, scaling=None, softcap=None, s_aux=None, **kwargs):
    """An attention function that notes what it is given."""
    SEEN[module.layer_idx] = {
        "mask": attention_mask[0, 0] == 0,
        "scale": scaling,
        "softcap": softcap,
        "sink": s_aux is not None,
        "shape": (query.shape[1], key.shape[1], query.shape[3], value.shape[3]),
    }
    return query.transpose(1, 2).contiguous(), None


AttentionInterface.register("recorded", record)
AttentionMaskInterface.register(
    "recorded", lambda *args, **kwargs: eager_mask(*args, **{**kwargs, "allow_is_bidirectional_skip": False})
)


def visible(kind, length):
    """Which key each query sees, from the few fields that imported specs use."""
    i, j = torch.arange(length)[:, None], torch.arange(length)[None, :]
    seen = torch.ones(length, length, dtype=torch.bool)
    if kind.causal:
        seen &= j <= i
    if kind.window is not None:
        seen &= (j >= i - kind.window.left) & (j <= i + kind.window.right)
    if kind.chunk is not None:
        seen &= i // kind.chunk == j // kind.chunk
    return seen


@pytest.mark.parametrize("case", CASES)
def test_each_layer_receives_what_the_spec_says(case):
    model_type = case.split("-")[0]
    config = {"model_type": model_type, "dtype": "float32", **CASES[case]}
    spec = import_config(config).spec
    SEEN.clear()
    hf_config = CONFIG_MAPPING[model_type](**CASES[case], attn_implementation="recorded")
    with torch.no_grad():
        model = AutoModel.from_config(hf_config, dtype=torch.float32)
        model(input_ids=torch.ones(1, LENGTH, dtype=torch.long), use_cache=False)
    assert sorted(SEEN) == list(range(spec.layers))
    for layer, seen in SEEN.items():
        kind = spec.kind(spec.layer_kinds[layer])
        assert torch.equal(seen["mask"], visible(kind, LENGTH)), f"layer {layer}, {kind}"
        assert seen["scale"] == pytest.approx(kind.scale)
        assert seen["softcap"] == kind.softcap
        assert seen["sink"] == kind.sink
        assert seen["shape"] == (kind.heads.query, kind.heads.kv, kind.head_dim.qk, kind.head_dim.v)


@pytest.mark.parametrize(
    "model_type",
    [
        "modernbert",
        "gemma2",
        "gemma3_text",
        "gpt_oss",
        "mistral",
        "olmo3",
        "cohere2",
        "llama",
        "llama4_text",
        "deepseek_v32",
        "glm_moe_dsa",
    ],
)
def test_what_a_config_leaves_out_is_what_transformers_assumes(model_type):
    written = CONFIG_MAPPING[model_type]().to_dict()
    assert import_config({"model_type": model_type}).spec == import_config(written).spec


def test_the_example_of_glm_5_is_transformers_default():
    written = CONFIG_MAPPING["glm_moe_dsa"](dtype="bfloat16").to_dict()
    assert import_config(written, "glm-5").spec == load_spec(EXAMPLES / "glm-5.yaml")


@pytest.mark.parametrize(
    "fields", [{"index_topk_freq": 4, "index_skip_topk_offset": 3}, {"index_topk_pattern": "FFSFS"}]
)
def test_layers_that_share_a_selection_are_transformers_own(fields):
    config = {**SMALL, "num_hidden_layers": 5, **fields}
    written = CONFIG_MAPPING["glm_moe_dsa"](**config).to_dict()
    imported = import_config({"model_type": "glm_moe_dsa", **config}).spec
    assert "shared" in imported.layer_kinds
    assert imported == import_config(written).spec == import_config({**written, **fields}).spec
    types = [{"sparse": "full"}.get(name, name) for name in imported.layer_kinds]
    assert types == written["indexer_types"]


def test_a_saved_bidirectional_gemma3_keeps_its_window():
    config = CONFIG_MAPPING["gemma3_text"](use_bidirectional_attention=True, sliding_window=512)
    window = import_config(config.to_dict()).spec.kind("local").window
    assert (window.left, window.right) == (256, 256)

"""Models whose indexer selects keys, DeepSeek-V3.2 and GLM-5, give the states and the text of eager attention."""

import copy
from dataclasses import replace

import pytest

pytest.importorskip("transformers")

import torch

from attngen.errors import CallError
from attngen.importer import import_config
from attngen.integrations.transformers import register
from attngen.integrations.transformers.expanded import Expanded
from attngen.op import KindOp, SparseOp
from attngen.spec.model import HeadDim, Heads, Latent
from tests.integrations.models import SELECTING, TOP_K, batch, caches, config, difference, hidden_states, model

# Float32 against float32: each layer rounds a few times, and each rounding is at most 2**-24 of a value.
ROUNDING = 64 * 2.0**-24
DEEPSEEK = import_config(config("deepseek_v32").to_dict()).spec
KIND = DEEPSEEK.kinds[0]
LLAMA = import_config(config("llama").to_dict()).spec


def stable_topk(scores, k, dim=-1, **keywords):
    """As ``torch.Tensor.topk``, but that ties go to the lowest index."""
    best = torch.sort(scores, dim=dim, descending=True, stable=True)
    return torch.return_types.topk((best.values.narrow(dim, 0, k), best.indices.narrow(dim, 0, k)))


@pytest.fixture(autouse=True)
def _stable(monkeypatch):
    """The models' own indexers select by a rule, so that two runs select alike where scores are equal."""
    monkeypatch.setattr(torch.Tensor, "topk", stable_topk)


def spec_of(name):
    return import_config(config(name).to_dict()).spec


def other(**changes):
    return replace(DEEPSEEK, kinds=(replace(KIND, **changes),))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("padding", ["none", "right", "left"])
@pytest.mark.parametrize("name", SELECTING)
def test_hidden_states(name, padding, device):
    register(spec_of(name), name="attngen-test")
    made, inputs = model(name, device), batch(padding, device)
    eager = hidden_states(made, inputs, "eager")
    assert difference(hidden_states(made, inputs, "attngen-test"), eager) < ROUNDING
    with torch.no_grad():
        assert made(**inputs).logits.isfinite().all()  # rows of padding too


@pytest.mark.parametrize(("name", "cache"), caches(SELECTING))
def test_generation_with_left_padding(name, cache):
    """From fewer keys than are selected, all of which are attended to, to more."""
    register(spec_of(name), name="attngen-test")
    inputs = {key: tensor[:, 24:] for key, tensor in batch("left").items()}
    assert inputs["input_ids"].shape[1] == TOP_K - 2
    runs = []
    for attention in ("eager", "attngen-test"):
        model(name).set_attn_implementation(attention)
        runs.append(
            model(name).generate(
                **inputs,
                max_new_tokens=6,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
                cache_implementation=cache,
                disable_compile=True,
            )
        )
    assert torch.equal(runs[0].sequences, runs[1].sequences)
    assert difference(torch.stack(runs[1].logits), torch.stack(runs[0].logits)) < ROUNDING


def test_scores_that_are_all_equal():
    """Every key is a tie, and the rule alone says which are selected."""
    register(DEEPSEEK, name="attngen-test")
    tied = copy.deepcopy(model("deepseek_v32"))
    for layer in tied.model.layers:
        torch.nn.init.zeros_(layer.self_attn.indexer.weights_proj.weight)
    inputs = batch("left")
    eager = hidden_states(tied, inputs, "eager")
    assert difference(hidden_states(tied, inputs, "attngen-test"), eager) < ROUNDING
    assert difference(hidden_states(model("deepseek_v32"), inputs, "eager"), eager) > 100 * ROUNDING


def test_a_selection_off_by_one_key_would_be_seen(monkeypatch):
    register(DEEPSEEK, name="attngen-test")
    eager = hidden_states(model("deepseek_v32"), batch("none"), "eager")

    def worst(scores, k, dim=-1, **keywords):
        """The next best key in place of the last one."""
        if k != TOP_K:
            return stable_topk(scores, k, dim, **keywords)
        best = stable_topk(scores, k + 1, dim)
        return torch.return_types.topk(tuple(torch.cat([x[..., : k - 1], x[..., k:]], -1) for x in best))

    monkeypatch.setattr(torch.Tensor, "topk", worst)
    assert difference(hidden_states(model("deepseek_v32"), batch("none"), "attngen-test"), eager) > 100 * ROUNDING


def test_lists_of_all_keys_are_dense_attention():
    ops = Expanded("s", None)
    listed, dense = (ops.op(KIND, 24, 16, every=every) for every in (False, True))
    assert isinstance(listed, SparseOp) and isinstance(dense, KindOp)
    assert listed.kind.heads == dense.kind.heads == Heads(4, 4)
    assert listed.kind.head_dim == dense.kind.head_dim == HeadDim(24, 16)
    assert listed.kind.select.top_k == TOP_K and dense.kind.select is None
    assert ops.op(KIND, 24, 16, every=True) is dense


INDEXER = KIND.select.indexer
ODD = replace(KIND.select, top_k=TOP_K + 1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (other(select=ODD), "layer 0: the model's index_topk is 8; the spec's kind 'sparse' has 9"),
        (other(scale=24**-0.5), "layer 0: the model scales by 0.2646423; the spec's kind 'sparse' by 0.2041241"),
        (other(heads=Heads(8, 1)), "the model's num_attention_heads is 4; the spec's kind 'sparse' has 8"),
        (other(latent=Latent(64, 8)), "the model's kv_lora_rank is 32; the spec's kind 'sparse' has 64"),
        (other(latent=Latent(32, 16)), "the model's qk_rope_head_dim is 8; the spec's kind 'sparse' has 16"),
        (
            other(select=replace(KIND.select, indexer=replace(INDEXER, heads=16))),
            "the model's index_n_heads is 8; the spec's kind 'sparse' has 16",
        ),
        (
            other(select=replace(KIND.select, first=4)),
            "the spec's kind 'sparse' always selects its first 4 and last 0 keys, which the model does not ask for",
        ),
        (other(causal=False), "asks that a query sees j <= i; by the spec's kind 'sparse' it sees j selected for i"),
        (
            replace(LLAMA, kinds=(replace(LLAMA.kinds[0], heads=Heads(4, 4)),)),
            "layer 0: the model gives indices of selected keys; the spec's kind 'attention' selects none",
        ),
        (
            replace(DEEPSEEK, layers=5, layer_kinds=("sparse",) * 5),
            "the model has 4 layers; spec 'deepseek-v32' has 5",
        ),
    ],
)
def test_a_spec_of_another_model(spec, message):
    register(spec, name="attngen-test")
    with pytest.raises(CallError, match=message):
        hidden_states(model("deepseek_v32"), batch("none"), "attngen-test")


def test_layers_that_share_in_another_order():
    spec = spec_of("glm_moe_dsa sharing")
    assert spec.layer_kinds == ("sparse", "shared", "sparse", "shared")
    register(replace(spec, layer_kinds=("sparse", "sparse", "shared", "shared")), name="attngen-test")
    message = "layer 1 attends to the keys that the layer before selected; the spec's kind 'sparse' has an indexer"
    with pytest.raises(CallError, match=message):
        hidden_states(model("glm_moe_dsa sharing"), batch("none"), "attngen-test")


def test_a_model_that_selects_nothing():
    register(replace(DEEPSEEK, name="other"), name="attngen-test")
    with pytest.raises(CallError, match="layer 0: the model gives no indices; the spec's kind 'sparse' selects"):
        hidden_states(model("llama"), batch("none"), "attngen-test")


def test_another_selection_on_purpose():
    """strict=False: the model's lists are attended to whatever the spec's indexer is like."""
    register(other(select=ODD), name="attngen-test", strict=False)
    eager = hidden_states(model("deepseek_v32"), batch("right"), "eager")
    assert difference(hidden_states(model("deepseek_v32"), batch("right"), "attngen-test"), eager) < ROUNDING

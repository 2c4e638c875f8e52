"""Models, specs, weights and caches that attngen's sparse attention cannot take are one clear error."""

import copy
from dataclasses import replace

import pytest

pytest.importorskip("transformers")

import torch
from transformers.masking_utils import create_causal_mask

from attngen.errors import CallError, NotGeneratedError, UsageError
from attngen.integrations.transformers import use_sparse_attention
from attngen.spec.model import Indexer
from tests.integrations.models import TOP_K, batch, hidden_states, model
from tests.integrations.sparse_models import NAME, SHARING, attentions, replaced, spec_of


def test_another_model_under_the_same_name():
    made = replaced("deepseek_v32")
    with pytest.raises(CallError, match=f"attention '{NAME}' is that of another model; use_sparse_attention"):
        hidden_states(model("glm_moe_dsa"), batch("none"), NAME)
    copied = copy.deepcopy(made)
    with pytest.raises(CallError, match=r"is that of another model"):
        hidden_states(copied, batch("none"), NAME)
    use_sparse_attention(copied, spec_of("deepseek_v32"), name=f"{NAME}-2")
    states = [hidden_states(*run) for run in ((copied, batch("none"), f"{NAME}-2"), (made, batch("none"), NAME))]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_a_spec_of_another_model():
    spec = spec_of(SHARING)
    made, sparse, shared = copy.deepcopy(model(SHARING)), spec.kind("sparse"), spec.kind("shared")

    def refused(error, words, *kinds, order=spec.layer_kinds, strict=True):
        with pytest.raises(error, match=words):
            use_sparse_attention(made, replace(spec, kinds=kinds, layer_kinds=order), name=NAME, strict=strict)

    order = ("sparse", "shared", "shared", "sparse")
    words = "layer 2 of the model has an indexer; the spec's kind 'shared' has none"
    refused(CallError, words, sparse, shared, order=order)
    refused(CallError, "layer 2 of the model has an indexer", sparse, shared, order=order, strict=False)
    words = "layer 1 attends to the keys that the layer before selected; the spec's kind 'sparse' has an indexer"
    refused(CallError, words, sparse, shared, order=("sparse", "sparse", "sparse", "shared"))
    other = replace(sparse, select=replace(sparse.select, top_k=9))
    refused(CallError, "layer 0: the model's index_topk is 8; the spec's kind 'sparse' has 9", other, shared)
    tiny = replace(sparse, select=replace(sparse.select, indexer=Indexer(4, 32, "bfloat16")))
    refused(CallError, "layer 0: the model's index_n_heads is 8; the spec's kind 'sparse' has 4", tiny, shared)
    refused(NotGeneratedError, "its indexer has 4 heads; 8 to 128 are generated", tiny, shared, strict=False)
    refused(
        CallError,
        "layer 0 of the model .* 'sparse' has a latent and selects none",
        replace(sparse, select=None),
        shared,
    )
    refused(CallError, "layer 0 of the model .* 'sparse' has no latent", replace(sparse, latent=None), shared)
    assert not any("forward" in vars(attention) for attention in attentions(made))
    with pytest.raises(UsageError, match=r"model_type is 'llama'; the attention of deepseek_v32 or glm_moe_dsa can"):
        use_sparse_attention(model("llama"), spec)


def test_another_scale_or_mask():
    spec = spec_of("deepseek_v32")
    made, (kind,) = copy.deepcopy(model("deepseek_v32")), spec.kinds
    use_sparse_attention(made, replace(spec, kinds=(replace(kind, scale=24**-0.5),)), name=NAME)
    with pytest.raises(
        CallError, match=r"layer 0: the model scales by 0.2646423; the spec's kind 'sparse' by 0.2041241"
    ):
        hidden_states(made, batch("none"), NAME)
    use_sparse_attention(made, spec, name=NAME)
    with pytest.raises(CallError, match=r"layer 0 was given a mask of shape \(3, 1, 30, 30\) as its mask"):
        made(batch("none")["input_ids"], attention_mask=torch.zeros(3, 1, 30, 30))


class Float8Linear(torch.nn.Linear):
    """As a quantiser would have it."""


def test_an_expansion_that_is_not_a_plain_weight():
    spec, made = spec_of("deepseek_v32"), copy.deepcopy(model("deepseek_v32"))
    attention = attentions(made)[1]
    plain = attention.kv_b_proj
    attention.kv_b_proj = Float8Linear(32, 128, bias=False)
    with pytest.raises(
        CallError, match=r"layer 1: kv_b_proj is a Float8Linear .* a torch.nn.Linear without bias, whose"
    ):
        use_sparse_attention(made, spec, name=NAME)
    attention.kv_b_proj = copy.deepcopy(plain)
    attention.kv_b_proj.weight.data = plain.weight.data.to(torch.float8_e4m3fn)
    with pytest.raises(
        CallError, match=r"layer 1: kv_b_proj.weight is Parameter of torch.float8_e4m3fn; a torch.nn.Lin"
    ):
        use_sparse_attention(made, spec, name=NAME)
    attention.kv_b_proj = plain
    use_sparse_attention(made, spec, name=NAME)
    attention.kv_b_proj = copy.deepcopy(plain).half()
    with pytest.raises(CallError, match=r"layer 1: kv_b_proj.weight is torch.float16 on cpu; torch.float32 on cpu, as"):
        hidden_states(made, batch("none"), NAME)


def test_a_cache_of_another_attention():
    made, ids = replaced("deepseek_v32"), batch("none")["input_ids"]
    made.set_attn_implementation("eager")
    with torch.no_grad():
        cache = made(ids[:, :20]).past_key_values
        made.set_attn_implementation(NAME)
        with pytest.raises(
            CallError, match=r"layer 0: the cache holds .*, of another attention; latents are one head 40"
        ):
            made(ids[:, 20:], past_key_values=cache)


def test_a_shared_layer_with_no_lists():
    made = replaced(SHARING)
    attention = attentions(made)[1]
    hidden = torch.zeros(1, TOP_K + 1, 64)
    mask = create_causal_mask(made.config, hidden, None, past_key_values=None)
    positions = made.model.rotary_emb(hidden, torch.arange(TOP_K + 1)[None])
    with (
        torch.no_grad(),
        pytest.raises(CallError, match=r"layer 1 has no indexer, and no layer before it gave it 'prev"),
    ):
        attention(hidden, positions, mask)


def test_what_training_would_need_is_refused():
    made = replaced("deepseek_v32")
    for parameter in made.parameters():
        parameter.requires_grad_(False)
    attentions(made)[3].o_proj.weight.requires_grad_()  # alone, the last of all
    loss = made(**batch("none")).logits.sum()
    with pytest.raises(NotGeneratedError, match=r"kind 'sparse': the backward pass is not generated yet"):
        loss.backward()
    attentions(made)[0].attention_dropout = 0.1
    with pytest.raises(CallError, match=r"layer 0: attention dropout of 0.1 is not supported; model.eval\(\)"):
        made.train()(**batch("none"))
    with pytest.raises(CallError, match=r"output_attentions needs attn_implementation='eager'"):
        made.eval()(**batch("none"), output_attentions=True)

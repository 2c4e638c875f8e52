"""What a model may ask for and attngen does not do is one clear error."""

from dataclasses import replace

import pytest

pytest.importorskip("transformers")

import torch

from attngen.errors import CallError, NotGeneratedError, SpecError, UsageError
from attngen.importer import import_config
from attngen.integrations.transformers import register
from attngen.spec import parse_spec
from attngen.spec.model import Heads
from tests.integrations.models import SHAPE, batch, config, difference, hidden_states, model

LLAMA = import_config(config("llama").to_dict()).spec
KIND = LLAMA.kinds[0]


def run(spec, *, name="llama", strict=True, inputs=None, **keywords):
    register(spec, name="attngen-test", strict=strict)
    model(name).set_attn_implementation("attngen-test")
    with torch.no_grad():
        return model(name)(**(inputs or batch("none")), **keywords)


def other(**changes):
    return replace(LLAMA, kinds=(replace(KIND, **changes),))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(LLAMA, layers=5, layer_kinds=("attention",) * 5), "the model has 4 layers; spec 'llama' has 5"),
        (other(heads=Heads(8, 2)), "q has 4 heads"),
        (other(scale=0.125), "layer 0: the model scales by 0.25; the spec's kind 'attention' by 0.125"),
        (other(softcap=30.0), "layer 0: the model's softcap is None; that of the spec's 'attention' is 30.0"),
        (other(sink=True), "layer 0: the model has no sinks; the spec's kind 'attention' has a learned one"),
        (other(alibi=True), "has 'alibi', which the model does not ask for"),
        (other(causal=False), r"asks that a query sees j <= i; by the spec's kind 'attention' it sees every key"),
        (
            other(always_first=4),
            r"asks that a query sees j <= i; by the spec's kind 'attention' it sees .*j <= i.* or .*j < 4",
        ),
        (replace(LLAMA, layer_kinds=("external",) * 4), "layer 0 attends; spec 'llama' says it is external"),
    ],
)
def test_a_spec_of_another_model(spec, message):
    with pytest.raises(CallError, match=message):
        run(spec)


def test_a_model_with_sinks_and_a_spec_without():
    spec = import_config(config("gpt_oss").to_dict()).spec
    kinds = tuple(replace(kind, sink=False) for kind in spec.kinds)
    with pytest.raises(CallError, match="layer 0: the model has sinks; the spec's kind 'local' has none"):
        run(replace(spec, kinds=kinds), name="gpt_oss")


def test_padding_between_tokens():
    inputs = batch("none")
    inputs["attention_mask"][1, 7] = 0
    with pytest.raises(CallError, match="attention_mask has padding between tokens"):
        run(LLAMA, inputs=inputs)


def test_a_mask_of_the_callers_own():
    inputs = batch("none")
    inputs["attention_mask"] = torch.zeros(3, 1, 30, 30)
    with pytest.raises(CallError, match=r"layer 0 was given a mask of shape \(3, 1, 30, 30\)"):
        run(LLAMA, inputs=inputs)


def test_attention_weights():
    with pytest.raises(CallError, match="output_attentions needs attn_implementation='eager'"):
        run(LLAMA, output_attentions=True)


def test_dropout_in_training():
    from transformers import LlamaForCausalLM

    register(LLAMA, name="attngen-test")
    training = LlamaForCausalLM._from_config(config("llama", attention_dropout=0.1), attn_implementation="attngen-test")
    with pytest.raises(CallError, match=r"layer 0: attention dropout of 0.1 is not supported; model.eval\(\)"):
        training.train()(**batch("none"))


def test_a_dtype_without_kernels():
    from transformers import LlamaForCausalLM

    register(LLAMA, name="attngen-test")
    double = LlamaForCausalLM._from_config(config("llama"), attn_implementation="attngen-test").double()
    with pytest.raises(CallError, match="the model runs in float64; float16, bfloat16 or float32 is supported"):
        double(**batch("none"))


@pytest.mark.parametrize("name", ["flash-attngen", "my_sdpa", "flex", "eager2", "paged|attngen"])
def test_names_that_mean_something_else(name):
    with pytest.raises(UsageError, match=r"which transformers treats apart; 'attngen' would be right"):
        register(LLAMA, name=name)


@pytest.mark.parametrize("name", ["", "user/kernel", "a b", "8"])
def test_names_that_are_none(name):
    with pytest.raises(UsageError, match="cannot name an attention"):
        register(LLAMA, name=name)


def test_specs_that_cannot_be_used(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("heads: 4\nhead_dim: 16\nlayers: 2\nwindwo: 3\n")
    with pytest.raises(SpecError, match=r"wrong\.yaml:4:1"):
        register(path)
    with pytest.raises(NotGeneratedError, match="blocks of 40 are not generated"):
        register(parse_spec("heads: 4\nhead_dim: 16\nlayers: 2\nblocks: {size: 40}"))


def test_documents_are_told_by_models():
    with pytest.raises(UsageError, match="kind 'attention' has documents; leave them out"):
        register(parse_spec("heads: 4\nhead_dim: 16\nlayers: 2\ndocuments: true"))


def test_keys_of_another_sequence():
    from transformers import BertConfig, BertLMHeadModel

    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    decoder = BertConfig(vocab_size=99, is_decoder=True, add_cross_attention=True, **sizes)
    net = BertLMHeadModel(decoder).eval()
    net.set_attn_implementation(register(parse_spec("{heads: 4, head_dim: 16, layers: 1, causal: true}")))
    with pytest.raises(CallError, match="was given no mask of attngen's, as cross attention is not"):
        net(input_ids=torch.ones(1, 5, dtype=torch.long), encoder_hidden_states=torch.randn(1, 3, 64), use_cache=False)


def test_blocks_that_a_model_selects():
    with pytest.raises(CallError, match="gives block_indices, the blocks that an indexer selected"):
        run(LLAMA, block_indices=torch.zeros(1, 1, 30, 2, dtype=torch.int32))


def test_another_pattern_on_purpose():
    """strict=False: StreamingLLM's pattern on Llama, and a prefix given with the call."""
    text = f"heads: {{query: 4, kv: 2}}\nhead_dim: 16\nlayers: {SHAPE['num_hidden_layers']}\ncausal: true\n"
    inputs = batch("none")
    full = hidden_states(model("llama"), inputs, "eager")
    register(parse_spec(text + "window: {total: 16}\nalways: {first: 30}"), name="attngen-test", strict=False)
    assert difference(hidden_states(model("llama"), inputs, "attngen-test"), full) < 64 * 2.0**-24
    register(parse_spec(text + "window: {total: 8}\nalways: {first: 4}"), name="attngen-test", strict=False)
    assert difference(hidden_states(model("llama"), inputs, "attngen-test"), full) > 1e-3
    prefix = parse_spec(text + "prefix: argument")
    none = run(prefix, strict=False, prefix=torch.zeros(3, dtype=torch.int32)).logits
    some = run(prefix, strict=False, prefix=torch.tensor([0, 9, 30], dtype=torch.int32)).logits
    assert torch.equal(none[0], some[0])
    assert not torch.allclose(none[1, :9], some[1, :9])
    with pytest.raises(CallError, match="needs the argument 'prefix'"):
        run(prefix, strict=False)

"""Models of transformers give the hidden states, and the text, of their eager attention."""

from dataclasses import replace

import pytest

pytest.importorskip("transformers")

import torch
import transformers

from attngen.errors import CallError
from attngen.integrations.transformers import register
from attngen.spec.model import Window
from tests.integrations.models import (
    CONFIGS,
    DECODERS,
    attention_of,
    batch,
    caches,
    difference,
    hidden_states,
    model,
    spec_of,
)

# Float32 against float32: each layer rounds a few times, and each rounding is at most 2**-24 of a value.
ROUNDING = 64 * 2.0**-24
TOKENS = 5  # generated


# Of models and caches: both caches, windows and a layer without, sinks, and chunks of keys that the cache lets go.
OFTEN = {
    ("llama", "dynamic"),
    ("llama", "static"),
    ("mistral", "static"),
    ("gemma3", "dynamic"),
    ("gpt_oss", "static"),
    ("llama4", "dynamic"),
}


@pytest.mark.parametrize("padding", ["none", "right", "left"])
@pytest.mark.parametrize("name", CONFIGS)
def test_hidden_states(name, padding):
    inputs = batch(padding)
    if (name, padding) == ("llama4", "left"):
        with pytest.raises(CallError, match="padding on the left, which moves chunks of 8; pad on the right"):
            hidden_states(model(name), inputs, attention_of(name))
        return
    eager = hidden_states(model(name), inputs, "eager")
    assert difference(hidden_states(model(name), inputs, attention_of(name)), eager) < ROUNDING


@pytest.mark.parametrize(("name", "cache"), caches(DECODERS, OFTEN))
def test_generation_beyond_the_window(name, cache):
    """With left padding, where the model has no chunks, and caches whose layers let go of what is past a window."""
    inputs = {key: tensor[:, 18:] for key, tensor in batch("none" if name == "llama4" else "left").items()}
    runs = []
    for attention in ("eager", attention_of(name)):
        model(name).set_attn_implementation(attention)
        try:
            run = model(name).generate(
                **inputs,
                max_new_tokens=TOKENS,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
                cache_implementation=cache,
                disable_compile=True,
            )
        except TypeError as error:
            if (name, cache, attention) != ("llama4", "static", "eager"):
                raise
            pytest.skip(f"transformers {transformers.__version__} itself: {error}")  # 5.17
        runs.append(run)
    assert torch.equal(runs[0].sequences, runs[1].sequences)
    assert difference(torch.stack(runs[1].logits), torch.stack(runs[0].logits)) < ROUNDING
    bounded = any(kind.window or kind.chunk for kind in spec_of(name).kinds)
    layers = {type(layer).__name__ for layer in runs[1].past_key_values.layers}
    assert (f"{cache.capitalize()}SlidingWindowLayer" in layers) == bounded


def test_a_window_off_by_one_is_an_error_and_would_be_seen():
    """Refused when the spec is compared with the model; seen in the hidden states when it is not."""
    spec = spec_of("modernbert")
    local = replace(spec.kind("local"), window=Window(9, 9))
    wrong = replace(spec, kinds=(spec.kind("global"), local))
    inputs = batch("right")
    register(wrong, name="attngen-wrong")
    message = (
        r"layer 1: the model asks that a query sees \|i - j\| <= 8; by the spec's kind 'local' it sees \|i - j\| <= 9"
    )
    with pytest.raises(CallError, match=message):
        hidden_states(model("modernbert"), inputs, "attngen-wrong")
    register(wrong, name="attngen-wrong", strict=False)
    eager = hidden_states(model("modernbert"), inputs, "eager")
    assert difference(hidden_states(model("modernbert"), inputs, "attngen-wrong"), eager) > 100 * ROUNDING


@pytest.mark.gpu
@pytest.mark.parametrize("padding", ["none", "right", "left"])
@pytest.mark.parametrize("name", ["modernbert", "llama", "gemma2", "gpt_oss"])
def test_hidden_states_on_the_gpu(name, padding):
    """In bfloat16, no farther from float32 than eager attention is, give or take a tenth."""
    inputs = batch(padding, "cuda")
    exact = hidden_states(model(name, "cuda", torch.float32), inputs, "eager")
    half = model(name, "cuda", torch.bfloat16)
    eager = difference(hidden_states(half, inputs, "eager"), exact)
    assert difference(hidden_states(half, inputs, attention_of(name)), exact) < 1.1 * eager

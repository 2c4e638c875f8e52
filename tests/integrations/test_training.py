"""Models of transformers train by attngen as they do by their eager attention: the same gradients of every weight."""

from dataclasses import replace

import pytest

pytest.importorskip("transformers")

import torch

from attngen.errors import CallError
from attngen.importer import import_config
from attngen.integrations.transformers import register
from attngen.spec.model import Window
from tests.integrations.models import (
    CONFIGS,
    DECODERS,
    attention_of,
    batch,
    difference,
    hidden_states,
    made,
    model,
    spec_of,
)
from tests.integrations.test_models import ROUNDING

REVERSE = 4  # times the roundings of a forward pass: a backward pass has two products for each of its own
FAR = 100  # times what rounding explains: an error, and no rounding


def gradients(net: torch.nn.Module, inputs, attention: str, run=None) -> dict[str, torch.Tensor]:
    """Of every weight, for a loss that all valid tokens have a share in, in float64. ``run`` stands for the model."""
    net.set_attn_implementation(attention)
    net.zero_grad()
    output = (net if run is None else run)(**inputs)
    states = (output.logits if "logits" in output else output.last_hidden_state)[inputs["attention_mask"].bool()]
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(2)).to(states)
    (states.float() * weights).sum().backward()
    return {name: weight.grad.double() for name, weight in net.named_parameters() if weight.grad is not None}


def farthest(found: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> tuple[float, str]:
    """The largest relative L2 difference of a weight's gradient, and which weight it is."""
    assert found.keys() == others.keys()
    return max((float((x - others[name]).norm() / others[name].norm()), name) for name, x in found.items())


OFTEN = {("modernbert", "right"), ("gemma3", "left"), ("gpt_oss", "none"), ("llama4", "right"), ("llama4", "left")}
CASES = [
    pytest.param(name, padding, marks=() if (name, padding) in OFTEN else pytest.mark.slow)
    for name in CONFIGS
    for padding in ("none", "right", "left")
]


@pytest.mark.parametrize(("name", "padding"), CASES)
def test_gradients(name, padding):
    inputs = batch(padding)
    if (name, padding) == ("llama4", "left"):
        with pytest.raises(CallError, match="padding on the left, which moves chunks of 8; pad on the right"):
            gradients(model(name), inputs, attention_of(name))
        return
    apart, weight = farthest(*(gradients(model(name), inputs, x) for x in (attention_of(name), "eager")))
    assert apart < REVERSE * ROUNDING, weight


@pytest.mark.parametrize("name", ["mistral", "modernbert"])
@pytest.mark.parametrize("more", [-1, 1])
def test_a_window_off_by_one_would_be_seen(name, more):
    """In hidden states and in gradients, causal and not, a key too many or too few: where the spec is not compared."""
    spec = spec_of(name)
    kinds = [replace(kind, window=off_by(kind.window, more)) if kind.window else kind for kind in spec.kinds]
    register(replace(spec, kinds=tuple(kinds)), name="attngen-wrong", strict=False)
    inputs = batch("right")
    states, expected = (hidden_states(model(name), inputs, x) for x in ("attngen-wrong", "eager"))
    assert difference(states, expected) > FAR * ROUNDING
    apart, _ = farthest(*(gradients(model(name), inputs, x) for x in ("attngen-wrong", "eager")))
    assert apart > FAR * REVERSE * ROUNDING


def off_by(window: Window, more: int) -> Window:
    """A window with as many more keys on each side that has any."""
    return Window(window.left + more, window.right and window.right + more)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant):
    net, inputs = made("gemma3", num_hidden_layers=2).train(), batch("right")
    attention = register(import_config(net.config.to_dict()).spec, name="attngen-checkpointed")
    expected = gradients(net, inputs, attention)
    net.gradient_checkpointing_enable({"use_reentrant": reentrant})
    calls = []
    hooks = [layer.self_attn.register_forward_hook(lambda *_: calls.append(1)) for layer in net.model.layers]
    found = gradients(net, inputs, attention)
    assert len(calls) == 2 * len(hooks)  # once more where a layer's gradients are made
    assert farthest(found, expected)[0] == 0


COMPILED = [name for name in DECODERS if name != "gpt_oss"]  # whose experts' gradients transformers cannot compile


@pytest.mark.parametrize("name", ["modernbert", *(pytest.param(name, marks=pytest.mark.slow) for name in COMPILED)])
def test_a_training_step_compiles_in_one_graph(name):
    torch._dynamo.reset()
    net, inputs = made(name, num_hidden_layers=2).train(), batch("right")
    attention = register(import_config(net.config.to_dict()).spec, name="attngen-compiled")
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    found = gradients(net, inputs, attention, compiled)
    apart, weight = farthest(found, gradients(net, inputs, attention))
    assert apart < REVERSE * ROUNDING, weight

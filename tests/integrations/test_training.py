"""Models of transformers train by attngen as they do by their eager attention: the same gradients of every weight."""

import pytest

pytest.importorskip("transformers")

import torch

from attngen.importer import import_config
from attngen.integrations.transformers import register
from tests.integrations.models import CONFIGS, batch, config, model
from tests.integrations.test_models import ROUNDING

REVERSE = 4  # times the roundings of a forward pass: a backward pass has two products for each of its own


def gradients(name: str, inputs, attention: str, device: str = "cpu", dtype=torch.float32) -> dict[str, torch.Tensor]:
    """Of every weight, for a loss that all valid tokens have a share in, in float64."""
    net = model(name, device, dtype)
    net.set_attn_implementation(attention)
    net.zero_grad()
    output = net(**inputs)
    states = (output.logits if "logits" in output else output.last_hidden_state)[inputs["attention_mask"].bool()]
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(2)).to(states)
    (states.float() * weights).sum().backward()
    return {name: weight.grad.double() for name, weight in net.named_parameters() if weight.grad is not None}


def farthest(found: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> tuple[float, str]:
    """The largest relative L2 difference of a weight's gradient, and which weight it is."""
    assert found.keys() == others.keys()
    return max((float((x - others[name]).norm() / others[name].norm()), name) for name, x in found.items())


@pytest.mark.parametrize("padding", ["none", "right"])
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients(name, padding):
    register(import_config(config(name).to_dict()).spec, name="attngen-test")
    inputs = batch(padding)
    difference, weight = farthest(gradients(name, inputs, "attngen-test"), gradients(name, inputs, "eager"))
    assert difference < REVERSE * ROUNDING, weight

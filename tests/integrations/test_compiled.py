"""Whole models compiled as one graph, which knows no values: packed sequences, and what must not pass in silence."""

from dataclasses import replace

import pytest

pytest.importorskip("transformers")

import torch

from attngen.importer import import_config
from attngen.integrations.transformers import register
from attngen.spec.model import Window
from tests.integrations.models import VOCABULARY, difference, made
from tests.integrations.test_models import ROUNDING
from tests.integrations.test_packing import packed, rows
from tests.integrations.test_training import off_by


def nets(name: str, change=None, device: str = "cpu"):
    """A model with its spec, perhaps changed, and the same compiled."""
    torch._dynamo.reset()
    net = made(name, num_hidden_layers=2).eval().to(device)
    spec = import_config(net.config.to_dict()).spec
    net.set_attn_implementation(register(spec if change is None else change(spec), name="attngen-compiled"))
    return net, torch.compile(net, backend="aot_eager", fullgraph=True)


def logits(net, inputs):
    """Or hidden states, of a model that has no head."""
    options = {} if net.config.model_type == "modernbert" else {"use_cache": False}
    with torch.no_grad():
        return net(**inputs, **options)[0].double()


def moved(inputs, device):
    return {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in inputs.items()}


def padded(*hidden: int) -> dict[str, torch.Tensor]:
    """Two rows of which some tokens of the second are none."""
    ids = torch.randint(3, VOCABULARY, (2, 20), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[1, list(hidden)] = 0
    return {"input_ids": ids, "attention_mask": mask}


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
def test_packed_sequences_told_by_the_call(device):
    net, compiled = nets("mistral", device=device)
    inputs = moved(packed(rows(), said=True), device)
    assert difference(logits(compiled, inputs), logits(net, inputs)) < ROUNDING


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["llama", "mistral", "llama4", "modernbert"])
def test_what_is_asserted_holds_where_all_is_well(name, device):
    """With padding and without, for two lengths."""
    net, compiled = nets(name, device=device)
    for inputs in (padded(), padded(18, 19), {"input_ids": padded()["input_ids"][:, :13]}):
        given = moved(inputs, device)
        valid = given.get("attention_mask", torch.ones_like(given["input_ids"])) > 0
        found, expected = (logits(each, given)[valid] for each in (compiled, net))
        assert difference(found, expected) < ROUNDING


def test_what_values_say_is_asserted_as_the_graph_runs():
    _, compiled = nets("mistral")
    with pytest.raises(RuntimeError, match="position_ids start again within a row; in a compiled model"):
        logits(compiled, packed(rows(), said=False))
    with pytest.raises(RuntimeError, match="attention_mask has padding between tokens"):
        logits(compiled, padded(5, 6))


def test_chunks_that_padding_moves():
    net, compiled = nets("llama4")
    inputs = padded(18, 19)
    expected, found = (logits(each, inputs) for each in (net, compiled))
    assert difference(found[inputs["attention_mask"] > 0], expected[inputs["attention_mask"] > 0]) < ROUNDING
    with pytest.raises(RuntimeError, match="padding on the left, which moves chunks of 8"):
        logits(compiled, padded(0, 1))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("llama", {"causal": False}),
        ("llama", {"window": Window(3, 0)}),
        ("llama", {"chunk": 16}),
        ("llama4", {"chunk": 7}),
        ("llama4", {"chunk": None}),
    ],
    ids=str,
)
def test_another_mask_is_an_error_as_the_graph_runs(name, change):
    """Where the model names nothing to its layers that could be compared as it compiles."""
    _, compiled = nets(name, lambda spec: replace(spec, kinds=tuple(replace(kind, **change) for kind in spec.kinds)))
    with pytest.raises(RuntimeError, match="asks for another mask than the spec's kind"):
        logits(compiled, padded())


def test_a_window_off_by_one_is_an_error_as_it_compiles():
    def wider(spec):
        kinds = (replace(kind, window=kind.window and off_by(kind.window, 1)) for kind in spec.kinds)
        return replace(spec, kinds=tuple(kinds))

    _, compiled = nets("mistral", wider)
    with pytest.raises(Exception, match="the model has a sliding_window of"):
        logits(compiled, padded())

"""Whole models compiled as one graph, which knows no values: packed sequences, and what must not pass in silence."""

from dataclasses import replace

import pytest

pytest.importorskip("transformers")

import torch
from transformers import DynamicCache, StaticCache

from attngen.importer import import_config
from attngen.integrations.transformers import register
from attngen.spec.model import Window
from tests.integrations.models import VOCABULARY, difference, made
from tests.integrations.test_models import ROUNDING
from tests.integrations.test_packing import packed, rows
from tests.integrations.test_training import off_by


def nets(name: str, change=None, device: str = "cpu", layers: int = 2, strict: bool = True):
    """A model with its spec, perhaps changed, and the same compiled."""
    torch._dynamo.reset()
    net = made(name, num_hidden_layers=layers).eval().to(device)
    spec = import_config(net.config.to_dict()).spec
    spec = spec if change is None else change(spec)
    net.set_attn_implementation(register(spec, name="attngen-compiled", strict=strict))
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


def changed(**change):
    """A spec with the same change of every kind."""
    return lambda spec: replace(spec, kinds=tuple(replace(kind, **change) for kind in spec.kinds))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["llama", "mistral", "llama4", "modernbert"])
def test_packed_sequences_told_by_the_call(name, device):
    """By positions that start again as well, and by the call alone, which may say that no token is padding."""
    net, compiled = nets(name, device=device)
    inputs = moved(packed(rows(), said=True), device)
    expected = logits(net, inputs)
    assert difference(logits(compiled, inputs), expected) < ROUNDING
    if name != "llama4":  # where that means other chunks
        unpadded = inputs | {"attention_mask": torch.ones_like(inputs["input_ids"])}
        assert difference(logits(compiled, unpadded), expected) < ROUNDING


def test_packed_sequences_of_several_rows():
    """Some sequences are empty, and one ends with its row."""
    net, compiled = nets("llama")
    inputs = {name: torch.cat([x, x]) for name, x in packed(rows(), said=False).items()}
    ends = torch.tensor([0, 11, 11, 14, 30, 41, 44, 60, 60], dtype=torch.int32)
    inputs |= {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": 16, "max_length_k": 16}
    assert difference(logits(compiled, inputs), logits(net, inputs)) < ROUNDING


def test_packed_sequences_that_are_padded_besides():
    """Compiled as a whole, and layer by layer, where the mask is made outside of the graphs."""
    net, compiled = nets("llama")
    inputs = packed(rows(), said=True)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["attention_mask"][0, -2:] = 0
    with pytest.raises(RuntimeError, match="sequences packed in rows that are padded besides are not supported"):
        logits(compiled, inputs)
    torch._dynamo.reset()
    for layer in net.model.layers:
        layer.compile(backend="aot_eager")
    with pytest.raises(Exception, match="sequences packed in rows that are padded besides are not supported"):
        logits(net, inputs)


@pytest.mark.parametrize("change", [{"causal": False}, {"window": Window(3, 0)}, {"chunk": 3}, {"chunk": 15}], ids=str)
def test_another_mask_within_packed_sequences_is_an_error(change):
    _, compiled = nets("llama", changed(**change))
    with pytest.raises(RuntimeError, match="asks for another mask than the spec's kind"):
        logits(compiled, packed(rows(), said=True))


def test_another_place_of_packed_sequences_is_an_error():
    _, compiled = nets("llama")
    inputs = packed(rows(), said=True)
    inputs["cu_seq_lens_q"] = inputs["cu_seq_lens_k"] = torch.tensor([0, 11, 30], dtype=torch.int32)
    with pytest.raises(RuntimeError, match="asks for another mask than the spec's kind"):
        logits(compiled, inputs)


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
    with pytest.raises(RuntimeError, match="position_ids start again within a row: in a compiled model"):
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
    _, compiled = nets(name, changed(**change))
    with pytest.raises(RuntimeError, match="asks for another mask than the spec's kind"):
        logits(compiled, padded())


@pytest.mark.parametrize(("chunk", "length"), [(4, 12), (16, 20)])
def test_other_chunks_that_agree_at_both_ends(chunk, length):
    """Whether the model is told that nothing is padding or not."""
    for hidden in (True, False):
        _, compiled = nets("llama4", changed(chunk=chunk))
        inputs = {name: x[:, :length] for name, x in padded().items()}
        if hidden:
            del inputs["attention_mask"]
        with pytest.raises(RuntimeError, match="asks for another mask than the spec's kind"):
            logits(compiled, inputs)


def test_a_layer_of_another_kind_than_the_first_of_its_type():
    """The first three layers are right; the fourth sees all, and is given chunks."""
    _, compiled = nets("llama4", lambda spec: replace(spec, layer_kinds=spec.layer_kinds[:1] * 4), layers=4)
    with pytest.raises(RuntimeError, match="layer 3: the model asks for another mask"):
        logits(compiled, padded())


def in_pieces(net, ids, cache):
    """Logits of a text that is read in three pieces, by its cache, and its last token."""
    out = []
    with torch.no_grad():
        for first, end in ((0, 7), (7, 13), (13, 19), (19, 20)):
            out.append(net(input_ids=ids[:, first:end], past_key_values=cache, use_cache=True).logits)
    return torch.cat(out, 1).double()


OFTEN = {("llama", "static"), ("mistral", "dynamic")}
PIECES = [
    pytest.param(name, kind, marks=() if (name, kind) in OFTEN else pytest.mark.slow)
    for name in ("llama", "mistral", "gemma3")
    for kind in ("dynamic", "static")
]


@pytest.mark.parametrize(("name", "kind"), PIECES)
def test_pieces_by_a_cache(name, kind):
    net, compiled = nets(name)
    of_net = dict(config=net.config) if kind == "dynamic" else dict(config=net.config, max_cache_len=40)
    made_of = DynamicCache if kind == "dynamic" else StaticCache
    ids = padded()["input_ids"]
    expected = logits(net, {"input_ids": ids})
    assert difference(in_pieces(compiled, ids, made_of(**of_net)), expected) < ROUNDING


def test_chunks_by_a_cache_that_lets_keys_go():
    """Several tokens at once need a cache that keeps all keys; a model's own cache lets those of earlier chunks go."""
    net, compiled = nets("llama4")
    ids = padded()["input_ids"]
    expected = logits(net, {"input_ids": ids})
    assert difference(in_pieces(compiled, ids, DynamicCache()), expected) < ROUNDING
    with pytest.raises(RuntimeError, match="counts from the first key, which its cache has let go"):
        in_pieces(compiled, ids, DynamicCache(config=net.config))


def test_first_keys_by_a_cache_that_lets_keys_go():
    """A pattern of one's own (StreamingLLM) on a model whose cache is that of its windows."""
    net, compiled = nets("mistral", changed(always_first=2), strict=False)
    ids = padded()["input_ids"]
    assert difference(logits(compiled, {"input_ids": ids}), logits(net, {"input_ids": ids})) < ROUNDING
    with pytest.raises(RuntimeError, match="counts from the first key, which its cache has let go"):
        in_pieces(compiled, ids, DynamicCache(config=net.config))


def test_a_window_off_by_one_is_an_error_as_it_compiles():
    def wider(spec):
        kinds = (replace(kind, window=kind.window and off_by(kind.window, 1)) for kind in spec.kinds)
        return replace(spec, kinds=tuple(kinds))

    _, compiled = nets("mistral", wider)
    with pytest.raises(Exception, match="the model has a sliding_window of"):
        logits(compiled, padded())

"""Several sequences packed in one row give what each gives by itself, in every model, forward and backward."""

import pytest

pytest.importorskip("transformers")

import torch
from transformers import masking_utils

from attngen.errors import CallError
from attngen.importer import import_config
from attngen.integrations.transformers import register
from tests.integrations.models import CONFIGS, VOCABULARY, config, difference, model
from tests.integrations.test_models import ROUNDING
from tests.integrations.test_training import REVERSE, farthest

LENGTHS = (11, 3, 16)
OWN_CHUNKS = hasattr(masking_utils, "remap_positions_for_packed_sequence")  # counted from each sequence's first token


def rows(lengths=LENGTHS) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, VOCABULARY, (1, length), generator=generator) for length in lengths]


def packed(sequences, said: bool) -> dict[str, torch.Tensor]:
    """Sequences in one row, told apart by positions that start again, or by where each begins as well."""
    positions = torch.cat([torch.arange(ids.shape[1]) for ids in sequences])[None]
    inputs = {"input_ids": torch.cat(sequences, 1), "position_ids": positions}
    if said:
        ends = torch.tensor([0, *(ids.shape[1] for ids in sequences)]).cumsum(0).int()
        longest = max(ids.shape[1] for ids in sequences)
        inputs |= {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}
    return inputs


def states_and_gradients(net, calls: list[dict[str, torch.Tensor]]):
    """Last hidden states of all tokens, one call after the other, and what a loss of them makes of every weight."""
    net.zero_grad()
    states = [net(**inputs, use_cache=False, output_hidden_states=True).hidden_states[-1][0] for inputs in calls]
    states = torch.cat(states)
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
    (states * weights).sum().backward()
    gradients = {name: weight.grad.double() for name, weight in net.named_parameters() if weight.grad is not None}
    return states.detach().double(), gradients


OFTEN = {("llama", True), ("gemma3", False), ("llama4", True), ("llama4", False), ("modernbert", True)}
CASES = [
    pytest.param(name, said, marks=() if (name, said) in OFTEN else pytest.mark.slow)
    for name in CONFIGS
    for said in (False, True)
    if said or name != "llama4" or OWN_CHUNKS
]


@pytest.mark.parametrize(("name", "said"), CASES)
def test_packed_as_alone(name, said):
    """Told where sequences begin, as each alone; by positions that start again, as eager attention has it: there are
    models that do not look at them."""
    register(import_config(config(name).to_dict()).spec, name="attngen-test")
    net = model(name)
    net.set_attn_implementation("eager")
    calls = [{"input_ids": ids} for ids in rows()] if said else [packed(rows(), said)]
    alone, expected = states_and_gradients(net, calls)
    net.set_attn_implementation("attngen-test")
    states, gradients = states_and_gradients(net, [packed(rows(), said)])
    assert difference([states], [alone]) < ROUNDING
    found, weight = farthest(gradients, expected)
    assert found < REVERSE * ROUNDING, weight


@pytest.mark.skipif(OWN_CHUNKS, reason="chunks count from each sequence's first token")
def test_chunks_that_count_from_the_row_are_refused():
    register(import_config(config("llama4").to_dict()).spec, name="attngen-test")
    model("llama4").set_attn_implementation("attngen-test")
    with pytest.raises(CallError, match="chunks of 8 in packed sequences are supported where one begins"):
        model("llama4")(**packed(rows(), said=False), use_cache=False)


@pytest.mark.skipif(not OWN_CHUNKS, reason="chunks count from the first token of a row")
@pytest.mark.parametrize("said", [False, True])
@pytest.mark.parametrize("begin", [0, 8, 5])
def test_sequences_that_go_on_within_a_chunk_are_refused(begin, said):
    """A sequence of a row may be the rest of one: its positions say where it is."""
    register(import_config(config("llama4").to_dict()).spec, name="attngen-test")
    inputs = packed(rows(), said)
    inputs["position_ids"][0, :11] += begin
    net = model("llama4")
    net.set_attn_implementation("eager")
    with torch.no_grad():
        expected = net(**inputs, use_cache=False).logits.double()
    net.set_attn_implementation("attngen-test")
    if begin % 8:
        with pytest.raises(CallError, match="position_ids that begin at 0"):
            net(**inputs, use_cache=False)
    else:
        with torch.no_grad():
            found = net(**inputs, use_cache=False).logits.double()
        assert difference([found[0]], [expected[0]]) < ROUNDING

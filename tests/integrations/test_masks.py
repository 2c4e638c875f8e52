"""The descriptor that stands for a mask, against the masks that transformers itself would make."""

from types import SimpleNamespace

import pytest

pytest.importorskip("transformers")

import torch
from transformers import masking_utils
from transformers.masking_utils import sdpa_mask

from attngen.errors import CallError
from attngen.integrations.transformers.in_graph import are_alike, counts_of_rows
from attngen.integrations.transformers.masks import (
    describe_in_graph,
    describe_mask_call,
    is_descriptor,
    mask_call,
    read_mask,
    within_chunk,
)
from attngen.integrations.transformers.pattern import Pattern, pattern_of
from attngen.reference import visible
from attngen.spec.model import HeadDim, Heads, Kind, Window

NO_PADDING = torch.zeros(2, dtype=torch.int64)
FUNCTIONS = {
    "causal": (masking_utils.causal_mask_function, Pattern(causal=True)),
    "bidirectional": (masking_utils.bidirectional_mask_function, Pattern()),
    "sliding": (masking_utils.sliding_window_causal_mask_function(5), Pattern(True, Window(4, 0))),
    "both sides": (masking_utils.sliding_window_bidirectional_mask_function(3), Pattern(False, Window(3, 3))),
    "chunks": (masking_utils.chunked_causal_mask_function(4, NO_PADDING), Pattern(True, None, 4)),
}
CALLS = {
    "whole": dict(q_length=12, kv_length=12),
    "one more": dict(q_length=1, kv_length=12, q_offset=11),
    "static cache": dict(q_length=3, kv_length=20, q_offset=torch.tensor(6)),
    "sliding cache": dict(q_length=2, kv_length=6, q_offset=9, kv_offset=5),
}


# Of one query that sits at the last key, some tell nothing from others.
ALIKE = [("one more", {"causal", "bidirectional"}), ("one more", {"both sides", "chunks"})]


def mask_of(rows):
    return torch.tensor([[int(c) for c in row] for row in rows])


PADDING = {
    "none": None,
    "all valid": mask_of(["1" * 12, "1" * 12]),
    "right": mask_of(["1" * 12, "111111110000"]),
    "left": mask_of(["000000001111", "1" * 12]),
    "nothing": mask_of(["0" * 12, "011111111110"]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_patterns(name):
    function, pattern = FUNCTIONS[name]
    assert pattern_of(function) == pattern


@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_same_keys_as_transformers_own_masks(name, call, padding):
    function, pattern = FUNCTIONS[name]
    arguments = dict(batch_size=2, mask_function=function, attention_mask=PADDING[padding], **CALLS[call])
    expected = sdpa_mask(**arguments, allow_is_causal_skip=False)
    if pattern.chunk and (arguments.get("kv_offset") or padding in ("left", "nothing")):
        with pytest.raises(CallError, match="chunks of 4"):
            describe_mask_call(**arguments)
        return
    made = describe_mask_call(**arguments)
    kind = Kind("k", Heads(1, 1), HeadDim(16, 16), causal=pattern.causal, window=pattern.window, chunk=pattern.chunk)
    moved = made.clone()  # without its attribute, as after a move to another device
    for mask in (read_mask(made, 0), read_mask(moved, 0)):
        for b in range(2):
            seen = visible(
                kind,
                arguments["q_length"],
                arguments["kv_length"],
                batch=b,
                offsets=mask.offsets,
                key_range=mask.key_range,
            )
            assert torch.equal(seen, expected[b, 0]), (name, call, padding, b)


@pytest.mark.parametrize("padding", [None, PADDING["right"]], ids=["none", "right"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_how_many_keys_queries_see_in_a_graph(name, call, padding):
    """By the model's mask and by a kind's rules: the same for the kind that the model asks for, and for no other."""
    function, _ = FUNCTIONS[name]
    arguments = dict(batch_size=2, mask_function=function, **CALLS[call])
    drawn = read_mask(
        describe_in_graph(**{"kv_offset": 0, "q_offset": 0} | arguments, attention_mask=padding, device="cpu"), 0
    ).drawn
    expected = sdpa_mask(**arguments, allow_is_causal_skip=False).sum(-1)[:, 0]
    for other, (_, pattern) in FUNCTIONS.items():
        kind = Kind(
            "k", Heads(1, 1), HeadDim(16, 16), causal=pattern.causal, window=pattern.window, chunk=pattern.chunk
        )
        counts = counts_of_rows(kind, drawn, arguments["q_length"], arguments["kv_length"])
        assert bool(are_alike(drawn, counts)) == (other == name or (call, {name, other}) in ALIKE)
        if other == name:
            assert torch.equal(counts.by_first, expected[:, 0]) and torch.equal(counts.by_last, expected[:, -1])


@pytest.mark.parametrize("kv_offset", range(4))
def test_one_query_in_a_chunk_beside_a_cache_that_has_let_keys_go(kv_offset):
    function, _ = FUNCTIONS["chunks"]
    lengths = dict(q_length=1, kv_length=5)
    for q_offset in range(kv_offset, kv_offset + 5):  # the keys that a static cache has not filled come after it
        arguments = dict(batch_size=2, mask_function=function, **lengths, q_offset=q_offset, kv_offset=kv_offset)
        expected = sdpa_mask(**arguments, allow_is_causal_skip=False)
        in_graph = describe_in_graph(**arguments, attention_mask=None, device="cpu")
        for made in (describe_mask_call(**arguments), in_graph):
            mask = within_chunk(read_mask(made.clone(), 0), made, 4, 5)
            for b in range(2):
                kind = Kind("k", Heads(1, 1), HeadDim(16, 16), causal=True)
                seen = visible(kind, 1, 5, batch=b, offsets=mask.offsets, key_range=mask.key_range)
                assert torch.equal(seen, expected[b, 0]), q_offset


@pytest.mark.parametrize("padding", PADDING)
@pytest.mark.parametrize("call", ["whole", "one more", "static cache"])
def test_the_matrix_of_a_model_with_an_indexer(call, padding):
    """transformers' own; and what it draws can be read from it alone."""
    function, pattern = FUNCTIONS["causal"]
    valid = None if PADDING[padding] is None else PADDING[padding].bool()
    arguments = dict(batch_size=2, mask_function=function, attention_mask=valid, **CALLS[call])
    made = mask_call(config=SimpleNamespace(index_topk=8), **arguments)
    expected = sdpa_mask(**arguments, allow_is_causal_skip=False)
    assert made.dtype == torch.bool and torch.equal(made, expected)
    kind = Kind("k", Heads(1, 1), HeadDim(16, 16), causal=True)
    for mask in (read_mask(made, 0), read_mask(made.clone(), 0)):
        assert mask.pattern == pattern
        for b in range(2):
            lengths = (arguments["q_length"], arguments["kv_length"])
            seen = visible(kind, *lengths, batch=b, offsets=mask.offsets, key_range=mask.key_range)
            assert torch.equal(seen, expected[b, 0]), (call, padding, b)
    assert is_descriptor(mask_call(config=SimpleNamespace(), **arguments))


def test_a_matrix_that_draws_something_else():
    made = sdpa_mask(2, 12, 12, mask_function=FUNCTIONS["sliding"][0], allow_is_causal_skip=False)
    with pytest.raises(CallError, match=r"layer 3 was given a mask of its own drawing; a 2-D attention_mask"):
        read_mask(made, 3)


def test_defaults_of_the_op_where_they_say_the_same():
    made = describe_mask_call(2, 12, 12, mask_function=FUNCTIONS["causal"][0], attention_mask=PADDING["all valid"])
    mask = read_mask(made, 0)
    assert mask.offsets is None
    assert mask.key_range is None
    assert made.shape == (2, 1, 1, 4)


def test_functions_that_are_not_known():
    def inner_mask(b, h, q, k):
        return q >= k

    union = masking_utils.or_masks(masking_utils.causal_mask_function, inner_mask)
    for function in (inner_mask, union):
        with pytest.raises(CallError, match="which attngen does not know"):
            pattern_of(function)
    twice = masking_utils.and_masks(*(masking_utils.sliding_window_overlay(n) for n in (3, 5)))
    with pytest.raises(CallError, match="two windows or chunks"):
        pattern_of(twice)


@pytest.mark.parametrize("mask", [None, "mask", torch.zeros(2, 12, dtype=torch.bool), torch.zeros(2, 1, 1, 4)])
def test_masks_that_are_not_ours(mask):
    with pytest.raises(CallError, match="layer 3 was given"):
        read_mask(mask, 3)

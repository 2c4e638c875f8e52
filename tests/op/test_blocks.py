"""Ops of kinds that select blocks, and of kinds in branches, on the CPU: against the reference, and their refusals."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

import attngen
from attngen import reference
from attngen.errors import CallError, NotGeneratedError
from attngen.spec import parse_spec

BLOCKS = """
name: blocks
heads: {query: 4, kv: 2}
head_dim: {qk: 16, v: 24}
dtype: float32
causal: true
kinds:
  each:   {select: {blocks: {size: 8, top_k: 3, last: 1}}}
  shared: {select: {blocks: {size: 8, top_k: 3, first: 1, last: 1, per: kv_head}}, sink: learned}
pattern: [each, shared]
"""
BRANCHES = """
name: branches
heads: {query: 4, kv: 2}
head_dim: {qk: 16, v: 24}
dtype: float32
causal: true
kinds:
  sparse:
    branches:
      near: {window: {total: 6}}
      chosen: {select: {blocks: {size: 8, top_k: 3, first: 1, last: 1, per: kv_head, by: coarse}}}
      coarse: {compress: {size: 8, stride: 4}}
"""


@pytest.fixture(scope="module")
def blocks():
    return attngen.load(parse_spec(BLOCKS))


@pytest.fixture(scope="module")
def branches():
    return attngen.load(parse_spec(BRANCHES))


def tensors(seq_q=19, seq_k=45, batch=2):
    generator = torch.Generator().manual_seed(seq_q)
    shapes = {"q": (batch, 4, seq_q, 16), "k": (batch, 2, seq_k, 16), "v": (batch, 2, seq_k, 24)}
    made = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return made, torch.randn(4, generator=generator), generator


PLACES = [
    {},
    {
        "offsets": torch.tensor([3, 26], dtype=torch.int32),
        "key_range": torch.tensor([[5, 44], [0, 12]], dtype=torch.int32),
    },
]


@pytest.mark.parametrize("placed", PLACES, ids=["whole", "placed"])
@pytest.mark.parametrize("name", ["each", "shared"])
def test_attends_to_the_blocks_that_it_selects(blocks, name, placed):
    inputs, sink, _ = tensors()
    sunk = {"sink": sink} if name == "shared" else {}
    op = blocks[name]
    means = reference.mean_keys(inputs["k"], 8, key_range=placed.get("key_range")).float()
    scores = reference.mean_scores(op.kind, inputs["q"], means)
    expected = reference.select_blocks(op.kind, scores, 45, **placed)
    chosen = op.select(inputs["q"], inputs["k"], **placed)
    assert torch.equal(chosen, expected) and chosen.shape[1] == (4 if name == "each" else 2)
    indices = reference.keys_of_blocks(expected, 8)
    right, right_lse = reference.attention(op.kind, **inputs, indices=indices, **sunk, **placed)
    for given in ({}, {"blocks": chosen}):
        out, lse = op(**inputs, **given, **sunk, **placed, return_lse=True)
        torch.testing.assert_close(out, right.float())
        torch.testing.assert_close(lse, right_lse.float())


def test_few_blocks_are_all_attended_to(blocks):
    inputs, _, _ = tensors(seq_q=24, seq_k=24)
    assert blocks.each.takes_all(24) and not blocks.each.takes_all(25)
    right, _ = reference.attention(blocks.each.kind, **inputs)
    torch.testing.assert_close(blocks.each(**inputs), right.float())


def by_hand(op, q, k, v, gates, own, **placed):
    """The sum of branches, each by the reference."""
    near, chosen, coarse = op.kind.branches
    coarse_k, coarse_v = own
    seq_k = k.shape[2]
    offsets = placed.get("offsets", torch.full((q.shape[0],), seq_k - q.shape[2], dtype=torch.int32))
    valid = None
    if "key_range" in placed:
        covered = [
            [c for c in range(coarse_k.shape[2]) if first <= 4 * c and 4 * c + 8 <= end]
            for first, end in placed["key_range"].tolist()
        ]
        valid = torch.tensor([[c[0], c[-1] + 1] if c else [0, 0] for c in covered], dtype=torch.int32)
    outs = [reference.attention(near, q, k, v, **placed)[0]]
    paid = reference.paid_scores(chosen, coarse, q, coarse_k, -(-seq_k // 8), offsets=offsets, key_range=valid)
    lists = reference.select_blocks(chosen, paid, seq_k, **placed)
    outs.append(reference.attention(chosen, q, k, v, indices=reference.keys_of_blocks(lists, 8), **placed)[0])
    outs.append(reference.attention(coarse, q, coarse_k, coarse_v, offsets=offsets, key_range=valid)[0])
    return sum(out * gates[..., n, None].double() for n, out in enumerate(outs))


@pytest.mark.parametrize("placed", PLACES, ids=["whole", "placed"])
@pytest.mark.parametrize("given", [True, False], ids=["compressed", "means"])
def test_branches_are_summed_by_their_gates(branches, given, placed):
    inputs, _, generator = tensors()
    op = branches.sparse
    gates = torch.rand(2, 4, 19, 3, generator=generator)
    if given:
        own = tuple(torch.randn(2, 2, 10, dim, generator=generator) for dim in (16, 24))
    else:
        own = tuple(
            torch.stack([x[:, :, 4 * c : 4 * c + 8].mean(2) for c in range(10)], 2) for x in (inputs["k"], inputs["v"])
        )
    keywords = dict(zip(("coarse_k", "coarse_v"), own, strict=True)) if given else {}
    out = op(**inputs, gates=gates, **keywords, **placed)
    torch.testing.assert_close(out, by_hand(op, **inputs, gates=gates, own=own, **placed).float(), rtol=1e-5, atol=1e-5)


def test_a_branch_may_have_keys_of_its_own(branches):
    inputs, _, generator = tensors()
    gates = torch.zeros(2, 4, 19, 3)
    gates[..., 0] = 1.0
    k, v = torch.randn(2, 2, 45, 16, generator=generator), torch.randn(2, 2, 45, 24, generator=generator)
    out = branches.sparse(**inputs, gates=gates, near_k=k, near_v=v)
    torch.testing.assert_close(out, branches.sparse.near(inputs["q"], k, v))


def test_by_layer_and_by_name(blocks, branches):
    inputs, sink, _ = tensors()
    assert torch.equal(blocks(**inputs, layer=0), blocks.each(**inputs))
    assert torch.equal(blocks(**inputs, layer=1, sink=sink), blocks.shared(**inputs, sink=sink))
    gates = torch.ones(2, 4, 19, 3)
    assert torch.equal(branches(**inputs, layer=0, gates=gates), branches.sparse(**inputs, gates=gates))


def test_compiled_as_one_graph_for_any_length(blocks, branches):
    counter = CompileCounter()
    torch._dynamo.reset()

    @torch.compile(backend=counter, fullgraph=True, dynamic=True)
    def both(q, k, v, gates):
        return blocks.each(q, k, v), branches.sparse(q, k, v, gates=gates)

    for seq_q, seq_k in ((19, 45), (33, 51), (21, 70)):
        inputs, _, generator = tensors(seq_q, seq_k)
        gates = torch.rand(2, 4, seq_q, 3, generator=generator)
        found = both(**inputs, gates=gates)
        torch.testing.assert_close(found[0], blocks.each(**inputs))
        torch.testing.assert_close(found[1], branches.sparse(**inputs, gates=gates))
    assert counter.frame_count == 1


def test_operators_pass_opcheck(blocks):
    inputs, _, _ = tensors()
    q, k, v = inputs.values()
    torch.library.opcheck(blocks.each.operator, (q, k, v))
    torch.library.opcheck(blocks.each.select_operator, (q, k))
    torch.library.opcheck(blocks.each.operator, (q, k, v, blocks.each.select(q, k)))


def test_gradients_stop_with_a_word(blocks):
    inputs, _, _ = tensors()
    out = blocks.each(inputs["q"].requires_grad_(), inputs["k"], inputs["v"])
    with pytest.raises(NotGeneratedError, match="backward"):
        out.sum().backward()


WRONG = [
    ("each", {"q": torch.randn(2, 3, 19, 16)}, "q has 3 heads"),
    ("each", {"sink": torch.randn(4)}, "takes no argument 'sink'"),
    ("shared", {}, "needs the argument 'sink'"),
    ("each", {"blocks": torch.zeros(2, 3, 19, 2, dtype=torch.int32)}, r"blocks is \(2, 3, 19, 2\).*\(2, 4, 19"),
    ("each", {"blocks": torch.zeros(2, 4, 19, 2, dtype=torch.int64)}, "of int32 is needed"),
    ("each", {"blocks": [1, 2]}, "'blocks' is list"),
    ("each", {"offsets": torch.zeros(3, dtype=torch.int32)}, "offsets"),
]


@pytest.mark.parametrize(("name", "changes", "message"), WRONG, ids=[message for *_, message in WRONG])
def test_wrong_calls_of_blocks(blocks, name, changes, message):
    inputs, _, _ = tensors()
    with pytest.raises(CallError, match=message):
        blocks[name](**{**inputs, **changes})


WRONG_BRANCHES = [
    ({"gates": torch.ones(2, 4, 19, 2)}, r"gates is \(2, 4, 19, 2\).*\(2, 4, 19, 3\).*near, chosen, coarse"),
    ({"gates": torch.ones(2, 4, 19, 3, dtype=torch.int32)}, "gates is .* of torch.int32"),
    ({"far_k": torch.ones(1)}, "takes no argument 'far_k'"),
    ({"near_k": torch.ones(2, 2, 45, 16)}, "'near_k' and 'near_v' are given together"),
    (
        {"coarse_k": torch.ones(2, 2, 9, 16), "coarse_v": torch.ones(2, 2, 9, 24)},
        "'coarse_k' has 9 keys; 10 stand for 45",
    ),
    ({"return_lse": True}, "a sum has no lse"),
    ({"near_sink": torch.ones(4)}, "takes no argument 'sink'"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG_BRANCHES, ids=[message for _, message in WRONG_BRANCHES])
def test_wrong_calls_of_branches(branches, changes, message):
    inputs, _, _ = tensors()
    with pytest.raises(CallError, match=message):
        branches.sparse(**{**inputs, "gates": torch.ones(2, 4, 19, 3), **changes})


def test_a_selection_asks_for_what_scores(blocks, branches):
    inputs, _, _ = tensors()
    with pytest.raises(CallError, match="selects by means: without 'lse'"):
        blocks.each.select(inputs["q"], inputs["k"], lse=torch.zeros(2, 4, 19))
    with pytest.raises(CallError, match="its 'lse' and 'seq_k' are needed"):
        branches.sparse.chosen.select(inputs["q"], inputs["k"])
    with pytest.raises(CallError, match="another branch scores its blocks"):
        branches.sparse.chosen(**inputs)

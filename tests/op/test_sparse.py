"""The op of a kind that selects keys, on tensors of the CPU: what it takes, and that its parts fit together."""

import pytest
import torch

import attngen
from attngen import CallError, reference
from attngen.inputs_sparse import make_index, make_indices
from attngen.op.selector import chunks
from attngen.spec import parse_spec

SPEC = """
name: small
heads: 4
latent: {rank: 32, rope: 16}
causal: true
select: {top_k: 16, first: 1, last: 2, indexer: {heads: 8, head_dim: 32, scale: {block: 32, format: ue8m0}}}
"""


def tensors(seq_q=20, seq_k=50, batch=2):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(batch, 4, seq_q, 48, generator=generator).bfloat16()
    k = torch.randn(batch, 1, seq_k, 48, generator=generator).bfloat16()
    kind = parse_spec(SPEC).kinds[0]
    return q, k, make_index(kind, batch, seq_q, seq_k, device="cpu")


def test_what_the_indexer_selects_is_what_is_attended_to():
    attn = attngen.load(parse_spec(SPEC))
    q, k, index = tensors()
    op = attn.attention
    indices = op.select(**index)
    assert indices.shape == (2, 20, 16) and indices.dtype == torch.int32
    _, end = reference.key_bounds(op.kind, 20, 50, 2)
    assert bool((indices[..., 0] == 0).all()) and bool(((indices == (end - 1)[..., None]).sum(-1) == 1).all())
    out, lse = attn(q, k, layer=0, return_lse=True, **index)
    again, lse_again = op(q, k, indices=indices, return_lse=True)
    assert torch.equal(out, again) and torch.equal(lse, lse_again)
    exact, exact_lse = reference.attention(op.kind, q, k, indices=indices)
    assert torch.equal(out, exact.to(out.dtype)) and torch.equal(lse, exact_lse.float())


def test_short_sequences_are_attended_to_whole():
    op = attngen.load(parse_spec(SPEC)).attention
    q, k, _ = tensors(seq_q=5, seq_k=16)
    assert torch.equal(op(q, k), reference.attention(op.kind, q, k)[0].to(q.dtype))


GIVEN = "name: given\nheads: {query: 4, kv: 2}\nhead_dim: 16\ncausal: true\nselect: {top_k: 16}\n"


@pytest.mark.parametrize("text", [SPEC, GIVEN], ids=["latent", "groups"])
def test_entries_of_a_list_that_count(text):
    op = attngen.load(parse_spec(text)).attention
    kind, sizes = op.kind, (2, 20, 50)
    given = make_indices(kind, *sizes, device="cpu")
    indices, lengths = given.pop("indices"), torch.arange(40, dtype=torch.int32).reshape(2, 20) % 17
    counts = torch.arange(indices.shape[-1]) < lengths[..., None]
    for lists, counted in ((indices, counts), (indices[:, None].repeat(1, kind.heads.kv, 1, 1), counts[:, None])):
        out = op(**given, indices=lists, topk_length=lengths)
        assert torch.equal(out, op(**given, indices=lists.where(counted, -1)))
        assert not torch.equal(out, op(**given, indices=lists))
    with pytest.raises(CallError, match="topk_length counts entries of 'indices', which is not given; leave it out"):
        op(**given, topk_length=lengths)
    with pytest.raises(CallError, match=r"topk_length has shape \(20,\); \(2, 20\) is needed"):
        op(**given, indices=indices, topk_length=lengths[0])


def test_without_lists_all_keys_are_taken_where_there_are_no_more():
    op = attngen.load(parse_spec(GIVEN)).attention
    given = make_indices(op.kind, 2, 20, 16, device="cpu")
    del given["indices"]
    assert torch.equal(op(**given), reference.attention(op.kind, **given)[0].to(given["q"].dtype))
    longer = {name: torch.cat([tensor, tensor[:, :, :1]], 2) for name, tensor in given.items()}
    with pytest.raises(CallError, match="kind 'attention' has no indexer; give 'indices'"):
        op(**longer)


def test_quantised_scores_select_nearly_what_exact_ones_do():
    op = attngen.load(parse_spec(SPEC)).attention
    _, _, index = tensors(seq_k=300)
    found = op.select(**index)
    first, end = reference.key_bounds(op.kind, 20, 300, 2)
    scores = reference.index_scores(**index).flatten(0, 1)
    best = reference.select_keys(scores, first.flatten(), end.flatten(), 16, first=1, last=2)
    got, most = (scores.gather(1, keys.long()).sum() for keys in (found.flatten(0, 1), best))
    assert 0.97 * most < got < most


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"index_q": None}, "needs the argument 'index_q': its indexer selects 16 of 50 keys; 'indices' would do too"),
        ({"index_q": torch.zeros(2, 8, 20, 16)}, r"index_q has shape \(2, 8, 20, 16\); \(batch, 8, seq_q, 32\) is"),
        ({"index_k": torch.zeros(1, 50, 32)}, r"index_k has shape \(1, 50, 32\); \(batch, seq_k, 32\) is needed"),
        ({"index_weights": torch.zeros(2, 20, 4)}, "index_weights has shape"),
        ({"index_k": torch.zeros(2, 49, 32)}, r"keys \(2, 20, 49\), and q and k of \(2, 20, 50\); they must be equal"),
        ({"indices": torch.zeros(2, 20, 3)}, "indices is torch.float32; torch.int32 is needed"),
        ({"indices": torch.zeros(2, 19, 3).int()}, r"indices has shape \(2, 19, 3\); \(2, 20, 3\) is needed"),
        ({"index_weights": torch.zeros(2, 20, 8).long()}, "index_weights is torch.int64; bfloat16, float16 or float32"),
    ],
)
def test_what_does_not_fit_is_said(changes, words):
    op = attngen.load(parse_spec(SPEC)).attention
    q, k, index = tensors()
    with pytest.raises(CallError, match=words):
        op(q, k, **(index | changes))


@pytest.mark.parametrize(("batch", "seq_q", "rows"), [(3, 100, 40), (5, 10, 25), (1, 8, 100), (2, 17, 1), (2, 0, 8)])
def test_chunks_are_every_query_once(batch, seq_q, rows):
    seen = torch.zeros(batch, seq_q, dtype=torch.int32)
    parts = list(chunks(batch, seq_q, rows))
    for part in parts:
        seen[part] += 1
        assert seen[part].numel() <= max(rows, 8) and seen[part].numel() <= seen[parts[0]].numel()
    assert bool((seen == 1).all())

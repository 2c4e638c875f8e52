"""The reference of a selection of blocks: against loops of plain Python, one query at a time."""

import math

import pytest
import torch

from attngen import reference
from attngen.spec.model import BlockSelect, Compress, HeadDim, Heads, Kind, Select, Window

KEYS, QUERIES, SIZE = 22, 9, 4


def kind_with(blocks: BlockSelect, **fields) -> Kind:
    return Kind("kind", Heads(4, 2), HeadDim(8, 8), select=Select(blocks=blocks), scale=0.3, **fields)


def tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(2, heads, n, 8, generator=generator) for heads, n in ((4, QUERIES), (2, KEYS)))


def test_means_are_of_the_valid_keys_of_a_block():
    _, k = tensors()
    key_range = torch.tensor([[5, 18], [0, KEYS]], dtype=torch.int32)
    means = reference.mean_keys(k, SIZE, key_range=key_range)
    assert means.shape == (2, 2, 6, 8)
    torch.testing.assert_close(means[0, 1, 1], k[0, 1, 5:8].double().mean(0))
    torch.testing.assert_close(means[0, 1, 4], k[0, 1, 16:18].double().mean(0))
    torch.testing.assert_close(means[1, 0, 5], k[1, 0, 20:].double().mean(0))
    assert (means[0, :, 0] == 0).all() and (means[0, :, 5] == 0).all()


@pytest.mark.parametrize("per", ["head", "kv_head"])
@pytest.mark.parametrize("fields", [{"causal": True}, {"causal": True, "window": Window(9, 0)}, {}], ids=str)
def test_selected_are_the_blocks_with_the_largest_scores(per, fields):
    q, k = tensors()
    kind = kind_with(BlockSelect(SIZE, 3, first=1, last=1, per=per), **fields)
    given = {
        "offsets": torch.tensor([13, 4], dtype=torch.int32),
        "key_range": torch.tensor([[2, 21], [0, 9]], dtype=torch.int32),
    }
    means = reference.mean_keys(k, SIZE, key_range=given["key_range"])
    scores = reference.mean_scores(kind, q, means)
    found = reference.select_blocks(kind, scores, KEYS, **given)
    for b in range(2):
        seen = reference.visible(kind, QUERIES, KEYS, batch=b, **given)
        for place in range(found.shape[1]):
            heads = [place] if per == "head" else [2 * place, 2 * place + 1]
            for row in range(QUERIES):
                held = sorted({int(j) // SIZE for j in seen[row].nonzero()})
                value = {n: sum(float(q[b, h, row].double() @ means[b, h // 2, n]) for h in heads) for n in held}
                forced = {*held[:1], *held[-1:]}
                ranked = sorted(held, key=lambda n: (n not in forced, -value[n], n))[:3]
                assert found[b, place, row].tolist() == sorted(ranked) + [-1] * (3 - len(ranked))


def test_a_compressed_key_pays_a_block_for_each_stride_in_it():
    compressed = Kind("c", Heads(4, 2), HeadDim(8, 8), causal=True, compress=Compress(4, 2), scale=0.5)
    kind = kind_with(BlockSelect(8, 2, last=1, per="kv_head", by="c"), causal=True)
    q, k = tensors(1)
    k = k[:, :, :10]  # for keys 0-3, 2-5, ... 18-21
    offsets = torch.tensor([13, 1], dtype=torch.int32)
    paid = reference.paid_scores(kind, compressed, q, k, 3, offsets=offsets)
    for b, kv, row in [(0, 0, 0), (0, 1, 8), (1, 0, 4), (1, 1, 0)]:
        i = row + int(offsets[b])
        expected = [0.0] * 3
        for h in (2 * kv, 2 * kv + 1):
            seen = [c for c in range(10) if 2 * c + 3 <= i]
            weights = [math.exp(0.5 * float(q[b, h, row].double() @ k[b, kv, c].double())) for c in seen]
            for c, weight in zip(seen, weights, strict=True):
                for stride in range(2):
                    expected[(2 * c + 2 * stride) // 8] += weight / sum(weights)
        torch.testing.assert_close(paid[b, kv, row], torch.tensor(expected, dtype=torch.float64))


def test_lists_of_query_heads_and_keys_of_blocks():
    q, k = tensors(2)
    kind = kind_with(BlockSelect(SIZE, 2, last=1), causal=True)
    blocks = reference.select_blocks(kind, reference.mean_scores(kind, q, reference.mean_keys(k, SIZE)), KEYS)
    indices = reference.keys_of_blocks(blocks, SIZE)
    out, _ = reference.attention(kind, q, k, k, indices=indices)
    row, head = 5, 3
    i = row + KEYS - QUERIES
    keys = [j for n in blocks[1, head, row].tolist() if n >= 0 for j in range(n * SIZE, (n + 1) * SIZE) if j <= i]
    s = q[1, head, row].double() @ k[1, 1, keys].double().T * kind.scale
    torch.testing.assert_close(out[1, head, row], torch.softmax(s, 0) @ k[1, 1, keys].double())

"""The reference of a selection: against loops of plain Python."""

import math

import pytest
import torch

from attngen import reference
from attngen.spec.model import HeadDim, Heads, Kind, Latent, Window


def selected(scores, first, end, top_k, forced_first, forced_last):
    """The keys of one row, by sorting (forced, value, key)."""
    keys = range(max(first, 0), min(end, len(scores)))

    def rank(j):
        place = j - keys.start
        forced = place < forced_first or place >= len(keys) - forced_last
        value = scores[j]
        return (not forced, not math.isnan(value), 0 if math.isnan(value) else -value, j)

    chosen = sorted(sorted(keys, key=rank)[:top_k])
    return chosen + [-1] * (top_k - len(chosen))


@pytest.mark.parametrize("forced", [(0, 0), (2, 1), (0, 4)])
@pytest.mark.parametrize("top_k", [4, 7, 50])
def test_select_keys(top_k, forced):
    scores = torch.randn(12, 40, generator=torch.Generator().manual_seed(0)).mul(2).round()
    scores[1] = 0.0
    scores[2, ::3] = -0.0
    scores[3, ::5] = math.nan
    scores[4, ::2], scores[5, ::2] = math.inf, -math.inf
    first = torch.tensor([0, 0, 3, 1, 0, 0, 7, 0, 20, 0, -3, 0], dtype=torch.int32)
    end = torch.tensor([40, 40, 33, 40, 40, 40, 8, 0, 10, 4, 40, 99], dtype=torch.int32)
    found = reference.select_keys(scores, first, end, top_k, first=forced[0], last=forced[1])
    rows = zip(scores.tolist(), first.tolist(), end.tolist(), strict=True)
    assert found.tolist() == [selected(*row, top_k, *forced) for row in rows]


def test_index_scores():
    q, k, w = torch.randn(2, 3, 5, 8), torch.randn(2, 7, 8), torch.randn(2, 5, 3)
    q_scale, k_scale = torch.rand(2, 5, 3), torch.rand(2, 7)
    found = reference.index_scores(q, k, w, q_scale=q_scale, k_scale=k_scale)
    for b, t, s in [(0, 0, 0), (1, 4, 6), (0, 2, 3)]:
        heads = [w[b, t, h] * q_scale[b, t, h] * k_scale[b, s] * max(float(q[b, h, t] @ k[b, s]), 0) for h in range(3)]
        assert float(found[b, t, s]) == pytest.approx(float(sum(heads)), rel=1e-5, abs=1e-6)


FIELDS = [{}, {"causal": True}, {"window": Window(3, 1)}, {"causal": True, "window": Window(2, 0)}, {"chunk": 4}]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
@pytest.mark.parametrize("moved", [False, True])
def test_key_bounds_are_what_is_visible(fields, moved):
    kind = Kind("kind", Heads(1, 1), HeadDim(16, 16), **fields)
    given = {}
    if moved:
        given["offsets"] = torch.tensor([2, -3], dtype=torch.int32)
        given["key_range"] = torch.tensor([[1, 9], [0, 40]], dtype=torch.int32)
    first, end = reference.key_bounds(kind, 6, 11, 2, **given)
    j = torch.arange(11)
    for batch in range(2):
        seen = reference.visible(kind, 6, 11, batch=batch, **given)
        assert torch.equal((j >= first[batch, :, None]) & (j < end[batch, :, None]), seen)


def test_attention_over_a_list_is_attention_of_its_keys():
    kind = Kind("kind", Heads(2, 1), HeadDim(24, 16), causal=True, latent=Latent(16, 8), scale=0.3)
    q, k = torch.randn(1, 2, 3, 24), torch.randn(1, 1, 9, 24)
    indices = torch.tensor([[[0, 5, -1, 99], [8, 1, 2, -5], [-1, -1, 9, -1]]], dtype=torch.int32)
    out, lse = reference.attention(kind, q, k, indices=indices)
    seen = [[0, 5], [1, 2], []]  # the last key is past the second query's position
    for row, keys in enumerate(seen):
        for head in range(2):
            s = (q[0, head, row].double() @ k[0, 0, keys].double().T) * kind.scale
            expected = torch.softmax(s, 0) @ k[0, 0, keys, :16].double()
            torch.testing.assert_close(out[0, head, row], expected)
            torch.testing.assert_close(lse[0, head, row], torch.logsumexp(s, 0))

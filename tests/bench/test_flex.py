"""FlexAttention is asked for the same mask and scores as the reference has."""

import pytest
import torch

from attngen.bench.flex import mask_mod, score_mod
from attngen.inputs import make_inputs
from attngen.reference import visible
from attngen.spec import parse_spec

FIELDS = [
    "causal: true",
    "window: {left: 5, right: 2}",
    "causal: true, window: {total: 4}",
    "chunk: 5, causal: true",
    "dilation: 3",
    "causal: true, prefix: 6",
    "causal: true, prefix: argument",
    "causal: true, window: {total: 3}, always: {first: 2}",
    "window: {half: 2}, global_tokens: 2",
]


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize(("seq_q", "seq_k"), [(13, 13), (5, 13), (13, 5)])
def test_masks(fields, seq_q, seq_k):
    kind = parse_spec("{heads: 2, head_dim: 16, " + fields + "}").kinds[0]
    inputs = make_inputs(kind, 2, seq_q, seq_k, device="cpu")
    mask = mask_mod(kind, inputs)
    query, key = torch.arange(seq_q)[:, None], torch.arange(seq_k)[None, :]
    for b in range(2):
        given = {"prefix": inputs["prefix"]} if "prefix" in inputs else {}
        assert torch.equal(mask(b, 0, query, key), visible(kind, seq_q, seq_k, batch=b, **given))


def test_everything_needs_no_mask():
    assert (
        mask_mod(
            parse_spec("{heads: 2, head_dim: 16}").kinds[0],
            {"q": torch.zeros(1, 1, 1, 1), "k": torch.zeros(1, 1, 1, 1)},
        )
        is None
    )


def test_scores():
    kind = parse_spec("{heads: 2, head_dim: 16, softcap: 3, alibi: true}").kinds[0]
    inputs = make_inputs(kind, 1, 4, 6, device="cpu")
    score = score_mod(kind, inputs)
    s = torch.tensor(2.5)
    wanted = 3 * torch.tanh(s / 3) - inputs["alibi_slopes"][1] * (1 + 2 - 5 + 0) * -1
    assert torch.isclose(score(s, 0, torch.tensor(1), torch.tensor(1), torch.tensor(5)), wanted)
    assert score_mod(parse_spec("{heads: 2, head_dim: 16}").kinds[0], inputs | {"alibi_slopes": None}) is None

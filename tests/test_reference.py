"""The reference itself: against PyTorch where that has the pattern, else against loops of plain Python."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from attngen import reference
from attngen.spec.model import Kind, Window
from tests.op.cases import Case, config_of, inputs_of, kind_of
from tests.op.test_interpreter import FIELDS

FUNCTIONS = {
    "abs": abs, "min": min, "max": max, "exp": math.exp, "log": math.log, "sqrt": math.sqrt, "tanh": math.tanh,
    "floor": math.floor, "sigmoid": lambda x: 1 / (1 + math.exp(-x)), "where": lambda c, a, b: a if c else b,
    "inf": math.inf, "pi": math.pi,
}  # fmt: skip


class Clamped:
    """A caller's tensor: an index outside it takes the nearest element."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __getitem__(self, indices):
        indices = indices if isinstance(indices, tuple) else (indices,)
        return self.tensor[
            tuple(min(max(n, 0), size - 1) for n, size in zip(indices, self.tensor.shape, strict=True))
        ].item()


def seen(kind: Kind, i, j, names, prefix):
    """Whether the query at position i sees key j: the table of fields, word by word."""
    last = j if kind.compress is None else j * kind.compress.stride + kind.compress.size - 1
    causal = last <= i or not kind.causal
    takes = causal
    if kind.window is not None:
        takes &= kind.window.left is None or i - kind.window.left <= j
        takes &= kind.window.right is None or j <= i + kind.window.right
    if kind.chunk:
        takes &= i // kind.chunk == j // kind.chunk
    if kind.dilation:
        takes &= (i - j) % kind.dilation == 0
    if kind.mask is not None:
        takes &= bool(eval(kind.mask.text, dict(FUNCTIONS), {**names, "i": i, "j": j}))
    gives = kind.prefix is not None and j < (prefix if kind.prefix == "argument" else kind.prefix)
    gives |= kind.always_first is not None and j < kind.always_first and causal
    gives |= kind.global_tokens is not None and min(i, j) < kind.global_tokens and causal
    return takes or gives


def plainly(kind: Kind, q, k, v, offsets=None, key_range=None, sink=None, alibi_slopes=None, prefix=None, **named):
    """Attention in loops over sequences, heads, queries and keys."""
    batch, heads, seq_q, _ = q.shape
    seq_k = k.shape[2]
    q, k, v = q.double(), k.double(), v.double()
    out = torch.zeros(batch, heads, seq_q, v.shape[-1], dtype=torch.float64)
    lse = torch.full((batch, heads, seq_q), -math.inf, dtype=torch.float64)
    named = {name: Clamped(value) if isinstance(value, torch.Tensor) else value for name, value in named.items()}
    for b in range(batch):
        first, end = (
            (0, seq_k) if key_range is None else (max(int(key_range[b, 0]), 0), min(int(key_range[b, 1]), seq_k))
        )
        for h in range(heads):
            for row in range(seq_q):
                i = row + (seq_k - seq_q if offsets is None else int(offsets[b]))
                names = {**named, "h": h, "b": b}
                weights = {}
                for j in range(first, end):
                    if not seen(kind, i, j, names, None if prefix is None else int(prefix[b])):
                        continue
                    s = float(q[b, h, row] @ k[b, h // kind.heads.group, j]) * kind.scale
                    if kind.softcap is not None:
                        s = kind.softcap * math.tanh(s / kind.softcap)
                    if kind.alibi:
                        s -= float(alibi_slopes[h]) * abs(i - j)
                    if kind.score is not None:
                        s = eval(kind.score.text, dict(FUNCTIONS), {**names, "i": i, "j": j, "s": s})
                    weights[j] = math.exp(s)
                total = math.fsum(weights.values())
                if total > 0:
                    lse[b, h, row] = math.log(total)
                    denominator = total + (0.0 if sink is None else math.exp(float(sink[h])))
                    out[b, h, row] = sum(w / denominator * v[b, h // kind.heads.group, j] for j, w in weights.items())
    return out, lse


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("shifted", [False, True])
def test_each_field_against_loops(field, shifted):
    ranges = {"key_range": ((0, 9), (3, 8)), "offsets": (-2, 5)} if shifted else {}
    kind = Kind(**{**vars(FIELDS[field]), "head_dim": kind_of(head_dim=(16, 20)).head_dim})
    inputs = inputs_of(Case(kind, config_of(), seq_q=7, seq_k=9, seed=3, **ranges))
    for made, plain in zip(reference.attention(kind, **inputs), plainly(kind, **inputs), strict=True):
        torch.testing.assert_close(made, plain, rtol=1e-12, atol=1e-12)


PLAIN = {
    "every key": kind_of(heads=(4, 2)),
    "causal": kind_of(heads=(4, 2), causal=True),
    "window": kind_of(heads=(4, 4), window=Window(3, 5), scale=0.3),
    "causal window": kind_of(heads=(6, 2), causal=True, window=Window(4, 0)),
    "prefix": kind_of(causal=True, prefix=5),
}


@pytest.mark.parametrize("pattern", PLAIN)
@pytest.mark.parametrize("lengths", [(17, 17), (5, 23)], ids=str)
def test_plain_kinds_against_pytorch(pattern, lengths):
    kind, (seq_q, seq_k) = PLAIN[pattern], lengths
    inputs = inputs_of(Case(kind, config_of(), seq_q=seq_q, seq_k=seq_k))
    q, k, v = (inputs[name].double() for name in "qkv")
    i, j = torch.arange(seq_q)[:, None] + seq_k - seq_q, torch.arange(seq_k)
    masks = {
        "every key": torch.ones(seq_q, seq_k, dtype=torch.bool),
        "causal": j <= i,
        "window": (j >= i - 3) & (j <= i + 5),
        "causal window": (j > i - 5) & (j <= i),
        "prefix": (j <= i) | (j < 5),
    }
    with sdpa_kernel(SDPBackend.MATH):
        exact = scaled_dot_product_attention(q, k, v, attn_mask=masks[pattern], scale=kind.scale, enable_gqa=True)
    out, _ = reference.attention(kind, **inputs)
    torch.testing.assert_close(out, exact, rtol=1e-12, atol=1e-12)


def test_long_sequences_are_cut_into_rows(monkeypatch):
    kind = kind_of(causal=True)
    inputs = inputs_of(Case(kind, config_of(), seq_q=50, seq_k=60))
    whole = reference.attention(kind, **inputs)
    monkeypatch.setattr("attngen.reference.attend.ROWS", 16)
    for made, expected in zip(reference.attention(kind, **inputs), whole, strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-14, atol=1e-14)


def test_results_are_in_the_dtype_asked_for():
    kind = kind_of()
    out, lse = reference.attention(kind, **inputs_of(Case(kind, config_of(), seq_q=3, seq_k=4)), dtype=torch.float32)
    assert out.dtype == lse.dtype == torch.float32

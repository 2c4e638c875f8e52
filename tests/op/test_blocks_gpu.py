"""Ops of kinds that select blocks, and of kinds in branches, at real shapes on a GPU."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import attngen
from attngen import reference
from attngen.op.compressed import first_positions, window_means
from attngen.spec import load_spec
from attngen.verify.bounds import UNIT

pytestmark = pytest.mark.gpu
EXAMPLES = Path(__file__).parents[2] / "examples"
STRIP = 64  # queries that are compared


def inputs_of(kind, seq_q, seq_k, batch=1):
    generator = torch.Generator(device="cuda").manual_seed(seq_k)
    dtype = getattr(torch, kind.dtype)

    def normal(heads, seq, dim):
        return torch.randn(batch, seq, heads, dim, generator=generator, device="cuda").to(dtype).transpose(1, 2)

    heads = kind.heads
    return (
        normal(heads.query, seq_q, kind.head_dim.qk),
        normal(heads.kv, seq_k, kind.head_dim.qk),
        normal(heads.kv, seq_k, kind.head_dim.v),
    )


def strip(kind, out, q, k, v, blocks=None, **placed):
    """Relative L2 error of the last queries."""
    rows = slice(q.shape[2] - STRIP, None)
    offsets = torch.full((q.shape[0],), k.shape[2] - STRIP, dtype=torch.int32, device=q.device)
    indices = None if blocks is None else reference.keys_of_blocks(blocks[:, :, rows], kind.select.blocks.size)
    right, _ = reference.attention(kind, q[:, :, rows], k, v, indices=indices, **{"offsets": offsets, **placed})
    return float((out[:, :, rows].double() - right).norm() / right.norm())


@pytest.mark.parametrize(("size", "top_k", "seq"), [(512, 4, 8192), (4096, 2, 16384), (100, 7, 3001), (512, 8, 4000)])
def test_blocks_by_their_means(size, top_k, seq, tmp_path):
    spec = load_spec(EXAMPLES / "moba-llama-3.1-8b.yaml")
    moba = spec.kind("moba")
    blocks = replace(moba.select.blocks, size=size, top_k=top_k)
    kind = replace(moba, select=replace(moba.select, blocks=blocks))
    op = attngen.load(replace(spec, kinds=(kind, spec.kind("full"))), db=str(tmp_path / "t.sqlite")).moba
    q, k, v = inputs_of(kind, seq, seq)
    out, lse = op(q, k, v, return_lse=True)
    again, lse_again = op(q, k, v, return_lse=True)
    assert torch.equal(out, again) and torch.equal(lse, lse_again)
    if op.takes_all(seq):
        assert strip(replace(kind, select=None), out, q, k, v) <= UNIT[kind.dtype]
        return
    lists = op.select(q, k)
    assert torch.equal(out, op(q, k, v, blocks=lists))
    assert bool((lists[0, :, seq // 2] >= 0).all()) and bool((lists.diff(dim=-1)[lists[..., 1:] >= 0] > 0).all())
    own = torch.arange(seq, device="cuda") // size
    assert bool((lists == own[:, None]).any(-1).all()), "a query's own block is always selected"
    assert strip(kind, out, q, k, v, lists) <= UNIT[kind.dtype]


@pytest.mark.parametrize("seq_q", [4096, 300])
def test_branches(seq_q, tmp_path):
    spec = load_spec(EXAMPLES / "nsa-27b.yaml")
    op = attngen.load(spec, db=str(tmp_path / "t.sqlite")).sparse
    compressed, selected, window = op.kind.branches
    seq_k = 8192
    q, k, v = inputs_of(op.kind, seq_q, seq_k)
    gates = torch.rand(1, 64, seq_q, 3, device="cuda")
    out = op(q, k, v, gates=gates)
    assert torch.equal(out, op(q, k, v, gates=gates))
    ck, cv = (window_means(x, 32, 16) for x in (k, v))
    offsets = first_positions(q, seq_k, None)
    coarse, lse = op.compressed(q, ck, cv, offsets=offsets, return_lse=True)
    last = torch.full((1,), seq_k - STRIP, dtype=torch.int32, device="cuda")
    assert strip(compressed, coarse, q, ck, cv, offsets=last) <= UNIT["bfloat16"]
    blocks = op.selected.select(q, ck, lse=lse, seq_k=seq_k)
    assert blocks.shape == (1, 4, seq_q, 16)
    chosen = op.selected(q, k, v, blocks=blocks)
    assert strip(selected, chosen, q, k, v, blocks) <= UNIT["bfloat16"]
    near = op.window(q, k, v)
    assert strip(window, near, q, k, v) <= UNIT["bfloat16"]
    summed = sum(part.float() * gates[..., n, None] for n, part in enumerate((coarse, chosen, near)))
    torch.testing.assert_close(out, summed.bfloat16(), rtol=2.0**-7, atol=2.0**-8)

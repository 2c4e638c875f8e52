"""Packed documents, measured: what each system is asked for, and what is counted, on the CPU."""

import pytest
import torch

from attngen.bench.cases import BenchCase, spec_cases
from attngen.bench.lengths import log_uniform
from attngen.bench.packed import packed_inputs, packed_work
from attngen.bench.peers import PEERS
from attngen.bench.run import Bench, does, measure
from attngen.database import open_database
from attngen.plan import plan_forward
from attngen.report.work import work_of
from attngen.spec import parse_spec
from attngen.target import get_target
from tests.bench.test_backward import Turns

FIELDS = "heads: {query: 4, kv: 2}, head_dim: 16, dtype: float32, causal: true"
PACKED = parse_spec(f"{{{FIELDS}, documents: true}}").kinds[0]
PLAIN = parse_spec(f"{{{FIELDS}}}").kinds[0]
LENGTHS = (9, 1, 20)
H100 = get_target("h100")


def case(backward):
    return BenchCase("packed", "x", "x", PACKED, 1, sum(LENGTHS), backward, LENGTHS)


def test_lengths_are_drawn_by_their_logarithms():
    lengths = log_uniform(100_000, 16, 4096, seed=3)
    assert sum(lengths) == 100_000 and max(lengths) <= 4096
    below = sum(length < 256 for length in lengths[:-1])
    assert 0.3 < below / len(lengths) < 0.7  # 256 is the middle of 16 and 4096
    assert log_uniform(100_000, 16, 4096, seed=3) == lengths != log_uniform(100_000, 16, 4096, seed=4)


@pytest.mark.parametrize("backward", [False, True])
def test_what_is_measured_and_counted(backward, tmp_path):
    bench = Bench(H100, Turns(), device="cpu", db=open_database(str(tmp_path / "db")))
    (rows,) = measure(bench, [case(backward)], [])
    assert rows[0].ms == 1.0 and rows[0].note == ""
    (made,) = bench.timer.made
    shapes = [tuple(x.shape) for x in (made if backward else [made])]
    assert shapes == ([(1, 4, 30, 16), (1, 2, 30, 16), (1, 2, 30, 16)] if backward else [(30, 4, 16)])
    alone = [work_of(plan_forward(PLAIN), 1, length, length, H100).flops for length in LENGTHS]
    assert packed_work(PACKED, LENGTHS, H100, False).flops == sum(alone)
    assert rows[0].tflops == pytest.approx(packed_work(PACKED, LENGTHS, H100, backward).flops * 1e-9)


def test_tensors_have_an_element_for_each_document():
    kind = parse_spec(f"{{{FIELDS}, documents: true, score: 's + u[b]'}}").kinds[0]
    assert packed_inputs(kind, LENGTHS, "cpu")["u"].shape == (3,)


def test_a_spec_with_documents():
    """As many tokens as the sizes say, in documents up to that length."""
    spec = parse_spec(f"{{name: x, {FIELDS}, documents: true}}")
    (one,) = spec_cases(spec, spec.kinds, [(4, 100)])
    assert (one.batch, one.seq, sum(one.lengths), one.backward) == (1, 400, 400, False)
    assert max(one.lengths) <= 100 and len(set(one.lengths)) > 1


def test_flex_attention_tells_documents_apart(monkeypatch):
    """Its mask, not compiled, beside ours."""
    from torch.nn.attention import flex_attention as flex

    inputs = packed_inputs(PACKED, LENGTHS, "cpu")
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    out = PEERS["flex"].packed(PACKED, inputs)()
    alone = inputs["q"].new_zeros(out.shape)
    start = 0
    for length in LENGTHS:
        part = slice(start, start + length)
        q, k, v = (inputs[name][:, :, part] for name in "qkv")
        alone[:, :, part] = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        start += length
    assert torch.allclose(out, alone, atol=1e-5)


def test_who_takes_documents():
    assert [name for name, peer in PEERS.items() if does(peer, case(True))] == [
        "flex",
        "fa3",
        "fa4",
        "fa4-deterministic",
    ]

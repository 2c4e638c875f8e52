"""When one kernel makes the gradients of q, k and v."""

import pytest
import torch

from attngen.op import choose, gradients
from attngen.op.gradient_launch import Call, FusedLauncher
from attngen.op.gradients import Gradients
from attngen.spec.model import Window
from attngen.target import get_target
from tests.op.cases import kind_of

WINDOW = kind_of((4, 2), (128, 128), causal=True, window=Window(299, 0))


def prepared(monkeypatch, kind=WINDOW, lengths=(600, 600), wanted=(True, True, True), target="h100", dim=128):
    for module in (gradients, choose):
        monkeypatch.setattr(module, "target_here", lambda: get_target(target))
    seq_q, seq_k = lengths
    sizes = ((4, seq_q), (2, seq_k), (2, seq_k), (4, seq_q))
    q, k, v, dout = (torch.zeros(1, heads, length, dim).half()[..., :128] for heads, length in sizes)
    made = Gradients(kind, "sqlite://")
    return made._prepare(Call(q, k, v, dout, dict.fromkeys(made._keywords)), wanted)


@pytest.mark.parametrize("wanted", [(True, True, True), (True, False, True), (True, True, False)])
def test_one_kernel_for_long_sequences(monkeypatch, wanted):
    found = prepared(monkeypatch, wanted=wanted)
    assert isinstance(found.fused, FusedLauncher)
    assert found.fused.config["schedule"] == "hopper_fused"
    assert found.keys is None and found.queries is None


APART = {
    "a short sequence": {"lengths": (597, 597)},
    "few queries": {"lengths": (64, 4096)},
    "no window": {"kind": kind_of((4, 2), (128, 128), causal=True)},
    "a small window": {"kind": kind_of((4, 2), (128, 128), causal=True, window=Window(127, 0))},
    "softcap": {"kind": kind_of((4, 2), (128, 128), causal=True, window=Window(299, 0), softcap=9.0)},
    "rows that the copy engine does not take": {"dim": 129},
    "another GPU": {"target": "a100"},
}


@pytest.mark.parametrize("name", APART)
def test_two_kernels(monkeypatch, name):
    found = prepared(monkeypatch, **APART[name])
    assert found.fused is None and found.keys is not None and found.queries is not None


@pytest.mark.parametrize("of_queries", [True, False])
def test_what_is_wanted_alone_has_its_own_kernel(monkeypatch, of_queries):
    found = prepared(monkeypatch, wanted=(of_queries, not of_queries, not of_queries))
    assert found.fused is None
    assert (found.queries is not None, found.keys is not None) == (of_queries, not of_queries)

"""When one kernel makes the gradients of q, k and v."""

from dataclasses import replace

import pytest
import torch

from attngen.database import open_database
from attngen.op import choose, fused
from attngen.op.choose import Chooser
from attngen.op.gradient_launch import Call, FusedLauncher
from attngen.op.gradients import Gradients
from attngen.op.kind import KindOp
from attngen.plan.backward import plan_backward
from attngen.plan.space import default_config
from attngen.problem import Problem
from attngen.spec.model import Window
from attngen.target import get_target
from tests.database.database_examples import trial
from tests.op.cases import kind_of

WINDOW = kind_of((4, 2), (128, 128), causal=True, window=Window(299, 0))
BATCH = 14  # 5 blocks of 2 KV heads each: 140 programs
EVERYTHING = (True, True, True)


@pytest.fixture(autouse=True)
def h100(monkeypatch):
    on(monkeypatch, "h100")


def on(monkeypatch, target):
    for module in (fused, choose):
        monkeypatch.setattr(module, "target_here", lambda: get_target(target))


def prepared(kind=WINDOW, lengths=(600, 600), wanted=EVERYTHING, dim=128, batch=BATCH):
    seq_q, seq_k = lengths
    sizes = ((4, seq_q), (2, seq_k), (2, seq_k), (4, seq_q))
    q, k, v, dout = (torch.zeros(batch, heads, length, dim).half()[..., :128] for heads, length in sizes)
    made = Gradients(kind, "sqlite://")
    return made._prepare(Call(q, k, v, dout, dict.fromkeys(made._keywords)), wanted)


@pytest.mark.parametrize("wanted", [EVERYTHING, (True, False, True), (True, True, False)])
def test_one_kernel_for_long_sequences(wanted):
    found = prepared(wanted=wanted)
    assert isinstance(found.fused, FusedLauncher)
    assert found.fused.config["schedule"] == "hopper_fused"
    assert found.keys is None and found.queries is None


@pytest.mark.parametrize("causal", [True, False])
def test_one_kernel_without_a_window(causal):
    found = prepared(kind_of((4, 2), (128, 128), causal=causal), (4096, 4096), batch=3)
    assert isinstance(found.fused, FusedLauncher)


APART = {
    "a short sequence": {"lengths": (597, 597)},
    "few queries": {"lengths": (64, 4096)},
    "few programs": {"batch": 13},
    "a short sequence, no window": {"kind": kind_of((4, 2), (128, 128), causal=True), "lengths": (4095, 4095)},
    "a small window": {"kind": kind_of((4, 2), (128, 128), causal=True, window=Window(127, 0))},
    "chunks beside it": {"kind": kind_of((4, 2), (128, 128), causal=True, window=Window(299, 0), chunk=512)},
    "softcap": {"kind": kind_of((4, 2), (128, 128), causal=True, window=Window(299, 0), softcap=9.0)},
    "rows that the copy engine does not take": {"dim": 129},
}


@pytest.mark.parametrize("name", APART)
def test_two_kernels(name):
    found = prepared(**APART[name])
    assert found.fused is None and found.keys is not None and found.queries is not None


def test_two_kernels_on_another_gpu(monkeypatch):
    on(monkeypatch, "a100")
    assert prepared().fused is None


@pytest.mark.parametrize("of_queries", [True, False])
def test_what_is_wanted_alone_has_its_own_kernel(of_queries):
    found = prepared(wanted=(of_queries, not of_queries, not of_queries))
    assert found.fused is None
    assert (found.queries is not None, found.keys is not None) == (of_queries, not of_queries)


def times_are(monkeypatch, named):
    look_up = Chooser.look_up

    def measured(self, problem, *given):
        return replace(look_up(self, problem, *given), measured_ms=named.get(problem.kernel))

    monkeypatch.setattr(Chooser, "look_up", measured)


@pytest.mark.parametrize(("times", "one"), [((3.0, 2.0, 1.5), True), ((3.0, 1.0, 1.5), False)])
@pytest.mark.parametrize("lengths", [(600, 600), (100, 100)])
def test_what_was_measured_comes_before_the_rule(monkeypatch, times, one, lengths):
    named = dict(zip(("backward_fused", "backward_kv", "backward_q"), times, strict=True))
    times_are(monkeypatch, named)
    assert (prepared(lengths=lengths).fused is not None) == one
    kernels = [plan.kernel for plan in KindOp("spec", WINDOW, "sqlite://").gradient_plans(BATCH, *lengths)]
    assert kernels == ["backward_rows", *(["backward_fused"] if one else ["backward_kv", "backward_q"])]
    times_are(monkeypatch, {**named, "backward_q": None})
    assert (prepared(lengths=lengths).fused is not None) == (lengths == (600, 600))


def test_times_of_this_gpu_and_these_sizes_alone_are_measured_ones(tmp_path):
    plan = plan_backward(WINDOW).fused
    assert plan is not None
    db = open_database(f"sqlite:///{tmp_path / 'tunings.sqlite'}")
    at = Problem(plan.kernel, WINDOW.digest(), BATCH, 600, 600).bucket()
    assert Chooser(plan, db).at(at).measured_ms is None
    config = default_config(plan, get_target("h100"))
    for changes in ({"target": "h200"}, {"source": "model"}, {"at": Problem(at.kernel, at.digest, BATCH, 4096, 4096)}):
        db.record(trial(1.0, **{"at": at, "config": config, **changes}))
        assert Chooser(plan, db).at(at).measured_ms is None
    db.record(trial(2.0, at=at, config=config))
    assert Chooser(plan, db).at(at).measured_ms == 2.0

"""An indexer's logits and quantisation on the GPU: every config, real shapes, tensors past 2^31 elements."""

import pytest
import torch

from attngen.op.indexer import IndexerLauncher
from attngen.plan.indexer import plan_indexer
from attngen.plan.space import default_config, feasible_anywhere
from attngen.plan.space.indexer import why_not
from attngen.problem import Problem
from attngen.target import detect
from tests.op.indexer_cases import (
    IndexerCase,
    QuantiseCase,
    exact_logits,
    inputs_of,
    kind_of,
    run_indexer,
    run_quantise,
)
from tests.op.test_quantise import CASES as QUANTISED

pytestmark = pytest.mark.gpu
RAGGED = tuple((n * 37 % 900, n * 61 % 1700) for n in range(67))  # some empty, some past the last key
KINDS = {
    "64 heads": {"heads": 64, "head_dim": 128},
    "128 heads": {"heads": 128, "head_dim": 128},
    "24 heads of 96": {"heads": 24, "head_dim": 96},
    "8 heads of 32": {"heads": 8, "head_dim": 32},
    "100 heads of 64": {"heads": 100, "head_dim": 64},
}
SHAPES = {
    "2048 x 8192": {"seq_q": 2048, "seq_k": 8192, "batch": 1},
    "sequences that are no multiple of anything": {"seq_q": 333, "seq_k": 4001, "batch": 3},
    "one query": {"seq_q": 1, "seq_k": 65536, "batch": 2},
    "few queries": {"seq_q": 5, "seq_k": 20001, "batch": 1},
    "fewer keys than a tile": {"seq_q": 40, "seq_k": 40, "batch": 2},
    "strided": {"seq_q": 70, "seq_k": 3000, "batch": 2, "strided": True},
    "no keys": {"seq_q": 9, "seq_k": 100, "batch": 2, "ranges": ((7, 7),) * 9},
}


def case_of(kind, dtype="float8_e4m3", config=None, **fields):
    """``kind`` with its default config, or another."""
    case = IndexerCase(**{**KINDS[kind], "dtype": dtype, **fields})
    target = detect()
    if why_not(case.plan(), target):
        pytest.skip(f"{target.name} has no products of FP8")
    problem = Problem("indexer", "", case.batch, case.seq_q, case.seq_k)
    config = config or default_config(case.plan(), target, problem)
    return IndexerCase(**{**KINDS[kind], "dtype": dtype, **fields, "config": config})


@pytest.mark.parametrize("dtype", ["float8_e4m3", "bfloat16"])
@pytest.mark.parametrize("kind", ["64 heads", "24 heads of 96"])
def test_every_config(kind, dtype):
    case = case_of(kind, dtype, seq_q=67, seq_k=1500, batch=2, ranges=RAGGED, clean=True)
    for config in feasible_anywhere(case.plan(), detect()):
        wrong = run_indexer(
            case_of(kind, dtype, config, seq_q=67, seq_k=1500, batch=2, ranges=RAGGED, clean=True), "cuda"
        )
        assert not wrong, (config.label(), wrong)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("clean", [False, True])
def test_shapes(shape, clean):
    assert run_indexer(case_of("64 heads", clean=clean, **SHAPES[shape]), "cuda") == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float8_e4m3", "float16"])
@pytest.mark.parametrize("logits", ["float32", "bfloat16"])
def test_kinds(kind, dtype, logits):
    case = case_of(kind, dtype, logits=logits, seq_q=130, seq_k=3000, batch=2, extra_columns=24)
    assert run_indexer(case, "cuda") == []


@pytest.mark.parametrize("schedule", ["portable", "hopper"])
def test_logits_past_31_bits(schedule):
    """34000 x 65536 logits: the last rows are where 32 bits would not reach."""
    plan = plan_indexer(kind_of(8, 32), dtype="bfloat16")
    target = detect()
    if schedule not in {config["schedule"] for config in feasible_anywhere(plan, target)}:
        pytest.skip(f"{target.name} has no such schedule")
    config = default_config(plan, target, able=lambda config: config["schedule"] == schedule)
    case = IndexerCase(dtype="bfloat16", seq_q=34000, seq_k=65536, batch=1, config=config)
    inputs = inputs_of(case, "cuda")
    out = IndexerLauncher(plan, config)(**inputs)
    assert out.numel() > 2**31
    last = {**inputs, **{name: inputs[name][:, -5:].clone() for name in ("q", "w", "key_first", "key_end")}}
    exact, size = exact_logits(last)
    visible_keys = case.seq_k - 5
    error = (out[:, -5:] - exact).abs()[..., :visible_keys]
    assert (error <= size[..., :visible_keys] * 2.0**-24 * 44).all()


@pytest.mark.parametrize("name", QUANTISED)
def test_quantisation_gives_pytorchs_bits(name):
    case = QUANTISED[name]
    target = detect()
    if target.backend == "hip" or int(target.arch) < 89:
        pytest.skip(f"{target.name} has no FP8")
    assert run_quantise(case, "cuda") == []
    many = QuantiseCase(case.plan, (3, 100, 37), 16, strided=True)
    assert run_quantise(many, "cuda") == []


def test_graphs_replay_a_call():
    case = case_of("64 heads", seq_q=64, seq_k=2000, batch=1)
    inputs = inputs_of(case, "cuda")
    launcher = IndexerLauncher(case.plan(), case.config)
    out = launcher(**inputs)
    wanted = out.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launcher(**inputs, out=out)
    out.zero_()
    graph.replay()
    seen = torch.arange(2000, device="cuda") < inputs["key_end"][..., None]
    assert torch.equal(out[seen], wanted[seen])

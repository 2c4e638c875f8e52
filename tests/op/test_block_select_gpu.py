"""Lists of blocks on the GPU at real sizes: exact scores give equal lists, others the same but for ties in rounding."""

import dataclasses

import pytest
import torch

from attngen.op.block_select import BlockSelectLauncher
from attngen.plan.space import default_config, feasible_anywhere
from attngen.problem import Problem
from attngen.target import detect
from attngen.tuner.sparse_checks import BlockSelectChecks
from tests.op.block_select_cases import BlockCase, inputs_of, plan_of, run_blocks
from tests.op.test_block_select import CASES
from tests.source.test_block_select import PLANS

pytestmark = pytest.mark.gpu

# Batch, queries and keys.
REAL = {
    "MoBA": ((1, 4096, 32768), (1, 8192, 131072), (2, 1000, 33000), (3, 1, 65536), (1, 40, 300)),
    "top 64": ((1, 1024, 131072),),
    "MoBA in float32": ((1, 512, 32768),),
    "NSA": ((1, 4096, 65536), (2, 333, 5001), (4, 1, 65536), (1, 40, 20)),
    "NSA, top 64": ((1, 256, 65536),),
    "NSA, lists of heads": ((1, 256, 16384),),
}
SHAPES = [(name, sizes) for name, several in REAL.items() for sizes in several]
SPECIAL = ("mean, only first and last", "mean, NaN", "mean, infinite", "mean, -infinite", "mean, three heads")
SPECIAL += ("mean, top 1", "paid, three heads", "paid, long keys", "paid, key ranges", "paid, lse is infinite")


def problem_of(sizes):
    return Problem("block_select", "", *sizes)


@pytest.mark.parametrize("name, sizes", SHAPES, ids=str)
def test_real_shapes(name, sizes):
    plan, problem = PLANS[name], problem_of(sizes)
    launcher = BlockSelectLauncher(plan, default_config(plan, detect(), problem))
    assert BlockSelectChecks(plan, problem).find_fault(launcher) is None


@pytest.mark.parametrize("name", SPECIAL)
def test_exact_scores(name):
    """As the interpreter has them, with a tile that a GPU takes."""
    case = CASES[name]
    config = case.config.replace(BLOCK_Q=64 // case.plan.padded_heads, BLOCK_N=32)
    assert run_blocks(dataclasses.replace(case, config=config), "cuda") == []


@pytest.mark.parametrize("paid", [False, True])
@pytest.mark.parametrize("per", ["head", "kv_head"])
def test_exact_scores_of_many_rows(paid, per):
    """Ties are everywhere: a score is one of few whole numbers."""
    plan = plan_of(paid=paid, per=per, heads=(8, 2), top_k=12, first=1, last=2, dtype="bfloat16", dim=64)
    tiles = {(config["BLOCK_N"], config.get("FLATTEN")): config for config in feasible_anywhere(plan, detect())}
    for config in tiles.values():
        case = BlockCase(plan, seq_q=300, blocks=200, config=config, strided=config["BLOCK_N"] == 32)
        assert run_blocks(case, "cuda") == [], config.label()


@pytest.mark.parametrize("paid", [False, True])
def test_lists_do_not_depend_on_the_launch(paid):
    """The same bits whatever the batch, the chunk of queries and the config."""
    plan = PLANS["NSA" if paid else "MoBA"]
    problem = problem_of((2, 200, 30000))
    checks = BlockSelectChecks(plan, problem)
    launcher = BlockSelectLauncher(plan, default_config(plan, detect(), problem))
    whole = launcher(**checks.inputs)
    rows = slice(37, 101)
    part = {name: tensor[1:] for name, tensor in checks.inputs.items()}
    for name in ("q", "lse"):
        if name in part:
            part[name] = part[name][:, :, rows].contiguous()
    for name in ("block_first", "block_end", "key_first", "key_end"):
        if name in part:
            part[name] = part[name][:, rows].contiguous()
    assert torch.equal(launcher(**part), whole[1:, :, rows])


def test_graphs_replay_a_call():
    plan = PLANS["NSA"]
    problem = problem_of((1, 64, 8192))
    inputs = BlockSelectChecks(plan, problem).inputs
    launcher = BlockSelectLauncher(plan, default_config(plan, detect(), problem))
    out = launcher(**inputs)
    wanted = out.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launcher(**inputs, out=out)
    out.zero_()
    graph.replay()
    assert torch.equal(out, wanted)


def test_queries_past_31_bits():
    """2^31 elements of q and more: the last rows are where 32 bits would not reach."""
    plan = plan_of(heads=(1, 1), dim=128, last=1)
    rows = 2**24 + 300
    small = inputs_of(BlockCase(plan, batch=1, seq_q=300), "cuda")
    q = torch.zeros(1, 1, rows, 128, dtype=torch.float16, device="cuda")
    q[:, :, -300:] = small["q"]
    bounds = {}
    for name in ("block_first", "block_end"):
        bounds[name] = torch.zeros(1, rows, dtype=torch.int32, device="cuda")
        bounds[name][:, -300:] = small[name]
    launcher = BlockSelectLauncher(plan, default_config(plan, detect()))
    found = launcher(q, small["keys"], **bounds)
    assert torch.equal(found[:, :, -300:], launcher(**small)) and int(found[:, :, :-300].max()) == -1

"""Kernels for Hopper, assembled where there is no GPU: asynchronous products stay so, and main loops do not spill."""

import pytest

from attngen.plan import plan_forward
from attngen.plan.space import default_config, feasible
from attngen.spec.model import HeadDim, Heads, Kind, Window
from attngen.target import get_target
from tests.source.sass import assemble

H100 = get_target("h100")
MOST_SPILLS = 600  # bytes a thread, before and after the loops
SPILLS_IN_LOOPS = 2  # instructions


def kind_of(dims, heads=(8, 8), **fields):
    return Kind("kind", Heads(*heads), HeadDim(*dims), **fields)


def float8(dims, heads=(8, 8), **fields):
    return kind_of(dims, heads, dtype="float8_e4m3", **fields)


KERNELS = {
    "64 wide, 192 rows": (kind_of((64, 64)), {"BLOCK_M": 192}),
    "two chunks, causal": (kind_of((96, 96), causal=True), {}),
    "128 wide, causal": (kind_of((128, 128), causal=True), {}),
    "128 wide, full": (kind_of((128, 128)), {}),
    "192 and 128 wide, in turns": (kind_of((192, 128), causal=True), {"PING_PONG": True}),
    "256 wide": (kind_of((256, 256), heads=(8, 4), causal=True), {}),
    "a window, heads packed": (kind_of((128, 128), (8, 2), causal=True, window=Window(1023, 0)), {"PACK_HEADS": 4}),
    "first keys, a window and a sink": (
        kind_of((64, 64), (8, 2), causal=True, window=Window(255, 0), always_first=4, sink=True),
        {"BLOCK_M": 128},
    ),
    "alibi": (kind_of((128, 128), causal=True, alibi=True), {}),
    "softcap": (kind_of((128, 128), causal=True, chunk=500, softcap=30.0), {}),
    "128 wide, three warpgroups": (kind_of((128, 128), causal=True), {"BLOCK_M": 192, "BLOCK_N": 64}),
    "64 wide, in turns": (kind_of((64, 64), causal=True, dtype="float16"), {"BLOCK_M": 128, "PING_PONG": True}),
    "FP8, 128 wide, causal": (float8((128, 128), causal=True), {"BLOCK_N": 256, "PING_PONG": True}),
    "FP8, 128 wide, values under the next scores": (float8((128, 128), causal=True), {"BLOCK_N": 128}),
    "FP8, 128 wide, in turns": (float8((128, 128)), {"PING_PONG": True}),
    "FP8, 64 wide, 192 rows": (float8((64, 64), causal=True), {"BLOCK_M": 192}),
    "FP8, 256 wide": (float8((256, 256), causal=True), {}),
    "FP8, two chunks, sink": (float8((96, 96), causal=True, sink=True, softcap=30.0), {"BLOCK_M": 128}),
    "FP8, a window, heads packed": (
        float8((128, 128), (8, 2), causal=True, window=Window(1023, 0)),
        {"PACK_HEADS": 4, "BLOCK_N": 128},
    ),
    "FP8, 192 and 128 wide": (float8((192, 128), causal=True), {}),
    "FP8, values of 256 columns in order": (float8((64, 256), causal=True), {"BLOCK_M": 128, "BLOCK_N": 128}),
    "documents, causal": (kind_of((128, 128), (8, 2), causal=True, documents=True), {"PACK_HEADS": 4}),
    "documents, 192 rows": (kind_of((64, 64), documents=True), {"BLOCK_M": 192}),
    "prefix and global tokens": (kind_of((128, 128), causal=True, prefix="argument", global_tokens=3), {}),
}
QUICK = ("64 wide, 192 rows", "128 wide, causal", "FP8, 128 wide, causal")


pytestmark = pytest.mark.usefixtures("fresh_caches")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in KERNELS])
def test_main_loops_are_what_they_should_be(name):
    kind, changes = KERNELS[name]
    plan = plan_forward(kind)
    config = default_config(plan, H100).replace(**changes)
    assert config["schedule"] == "hopper" and feasible(plan, config, H100) is None
    made = assemble(plan, config)
    assert not made.warnings
    assert made.spills <= MOST_SPILLS
    consumers = config["BLOCK_M"] // 64
    assert len(made.loops) >= consumers
    for count in made.loops:
        assert count["LDL"] + count["STL"] <= SPILLS_IN_LOOPS, count
        assert count["WARPGROUP"] > 0 and count["MUFU"] >= config["BLOCK_N"] // 4
        assert count["SHFL"] in (0, 4)  # rows' maxima and nothing else: weights stay in their threads
        if kind.quantised:
            columns = sum(chunk.width for chunk in plan.v_chunks)
            assert count["HGMMA"] == 0 and count["LDS"] == count["STS"] == columns // 8  # sums put aside
            assert count["F2FP"] == config["BLOCK_N"] // 4 and count["PRMT"] <= config["BLOCK_N"] // 8
    whole = [count for count in made.loops if not count["FMNMX"]]  # tiles without an edge: nobody looks for maxima
    assert kind.quantised or (len(whole) >= consumers and not any(count["SHFL"] for count in whole))

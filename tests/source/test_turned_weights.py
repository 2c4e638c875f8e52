"""FP8 weights on Hopper: which scores become the operand of the values' product, read from the compiler's output."""

import importlib.util
import re

import pytest

from attngen.plan import plan_forward
from attngen.plan.space import default_config
from attngen.source import render
from attngen.spec.model import HeadDim, Heads, Kind
from attngen.target import get_target

PROBE = """

@gluon.jit
def probe(out_ptr):
    layout: gl.constexpr = gl.NVMMASharedLayout(64, 8, 2)
    values_layout: gl.constexpr = gl.NVMMASharedLayout(128, 8, 2)
    q = gl.allocate_shared_memory(gl.float8e4nv, [ROWS, 64], layout)
    k = gl.allocate_shared_memory(gl.float8e4nv, [BLOCK_N, 64], layout)
    v = gl.allocate_shared_memory(gl.float8e4nv, [64, BLOCK_N], values_layout)
    s = gl.zeros([ROWS, BLOCK_N], gl.float32, layout=SCORES)
    s = warpgroup_mma(q, k.permute((1, 0)), s, use_acc=False, is_async=True)
    s = warpgroup_mma_wait(0, deps=(s,))
    weights = operand(carried(s, None), None)
    weights = gl.convert_layout(weights, gl.DotOperandLayout(0, VALUES_0, 4), assert_trivial=True)
    acc = gl.zeros([ROWS, 64], gl.float32, layout=VALUES_0)
    acc = warpgroup_mma(weights, v.permute((1, 0)), acc, is_async=True)
    acc = warpgroup_mma_wait(0, deps=(acc,))
    row = gl.arange(0, ROWS, layout=gl.SliceLayout(1, VALUES_0))
    column = gl.arange(0, 64, layout=gl.SliceLayout(0, VALUES_0))
    gl.store(out_ptr + row[:, None] * 64 + column[None, :], acc)
"""


def score(register):
    """Row (0 or 8 further down) and key of thread 0's n-th register of scores, by the PTX manual."""
    return register // 2 % 2 * 8, register // 4 * 8 + register % 2


def weight(register, byte):
    """Row and place of a byte of thread 0's n-th register of 8-bit weights, by the PTX manual."""
    return register % 2 * 8, register // 2 * 16 + byte


def key_at(place):
    """As ``turn_values`` has it."""
    return place // 16 * 16 + place // 2 % 2 * 8 + place // 4 % 4 * 2 + place % 2


@pytest.mark.parametrize(("rows", "keys"), [(128, 128), (192, 128), (128, 256)])
def test_each_place_has_its_key(rows, keys, tmp_path, monkeypatch):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.experimental.gluon._runtime import GluonASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setenv("ATTNGEN_CACHE", str(tmp_path / "attngen"))
    plan = plan_forward(Kind("kind", Heads(1, 1), HeadDim(64, 64), dtype="float8_e4m3"))
    config = default_config(plan, get_target("h100")).replace(BLOCK_M=rows, BLOCK_N=keys)
    path = tmp_path / f"probe_{rows}_{keys}.py"
    path.write_text(render(plan, config).text + PROBE)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source = GluonASTSource(fn=module.probe, signature={"out_ptr": "*fp32"}, constexprs={})
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4}).asm["ptx"]
    assert not re.search(r"shfl|[sl][td]\.shared|prmt", ptx)

    products = re.findall(r"wgmma\.mma_async\S+ \{([^}]*)\}, ?(?:\{([^}]*)\})?", ptx)
    scores = next(results for results, operand in products if not operand).split(",")
    operands = [register for _, operand in products if operand for register in operand.split(",")]
    narrowed = re.findall(r"x2\.f32 l, (\S+), (\S+); \S+x2\.f32 h, (\S+), (\S+); mov\.b32 (\S+), \{l, h\}", ptx)
    sources = {result: (b, a, d, c) for a, b, c, d, result in narrowed}  # the lowest byte first
    assert len(operands) == len(set(operands)) == keys // 8
    for n, register in enumerate(operands):
        for byte, source in enumerate(sources[register]):
            row, place = weight(n, byte)
            assert score(scores.index(source)) == (row, key_at(place))

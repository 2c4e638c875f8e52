"""Values turned before FP8 kernels for Hopper: each key's place, zeros behind the last, and what a launch is given."""

import os
import subprocess
import sys
from itertools import product

import pytest
import torch

from attngen.inputs import make_inputs
from attngen.op.arguments import Descriptor, constant_arguments, pointer_parameters
from attngen.op.turned import Turning, turned_shape
from attngen.plan import plan_forward
from attngen.plan.boxes import KEYS_TURNED
from attngen.plan.space import default_config
from attngen.source import render
from attngen.target import get_target
from tests.op.cases import kind_of

# The keys whose weights each of four threads holds, of 16: two of the first 8, and two of the others.
ORDER = [key for c in range(4) for key in (2 * c, 2 * c + 1, 8 + 2 * c, 9 + 2 * c)]
RANGES = [None, ((0, 300), (37, 290)), ((299, 400), (250, 249)), ((-5, 17), (310, 320))]
SIZES = [(32, 300), (80, 16), (48, 1), (256, 129)]  # columns, keys


def plan_of(dim):
    return plan_forward(kind_of(heads=(6, 3), head_dim=(dim, dim), dtype="float8_e4m3"))


def turned_by_hand(v, key_range):
    out = torch.zeros(turned_shape(v), dtype=torch.uint8)
    for b in range(v.shape[0]):
        first, end = key_range[b] if key_range else (0, v.shape[2])
        for place in range(out.shape[3]):
            key = max(first, 0) + place // KEYS_TURNED * KEYS_TURNED + ORDER[place % KEYS_TURNED]
            if key < min(end, v.shape[2]):
                out[b, :, :, place] = v[b, :, key]
    return out


def test_every_key_has_its_place():
    """In a process of its own, which imports Triton as its interpreter."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, __file__], env=environment, check=True, timeout=100)


def compare():
    for key_range, (dim, keys) in product(RANGES, SIZES):
        v = torch.randint(1, 256, (2, keys, 3, dim), dtype=torch.uint8).transpose(1, 2)
        ranges = None if key_range is None else torch.tensor(key_range, dtype=torch.int32)
        turned = Turning(plan_of(dim), v)(v.view(torch.float8_e4m3fn), ranges)
        assert turned.shape == (2, 3, dim, -(-keys // 16) * 16) and turned.dtype == torch.float8_e4m3fn
        assert torch.equal(turned.view(torch.uint8), turned_by_hand(v, key_range)), (key_range, dim, keys)


def test_a_kernel_is_given_them():
    plan = plan_of(96)
    config = default_config(plan, get_target("h100"))
    assert config["schedule"] == "hopper"
    inputs = make_inputs(plan.kind, 2, 50, 70, device="cpu")
    tensors, extras = [inputs.pop(name) for name in "qkv"], [*inputs.values(), None, None]
    parameters = render(plan, config).parameters
    arguments = constant_arguments(plan, config, parameters, *tensors, extras)
    given = dict(zip(parameters, arguments, strict=True))
    assert isinstance(given["v_desc_1"], Descriptor)
    assert given["v_desc_1"].shape == [2, 3, 96, 80] and given["v_desc_1"].strides == [3 * 96 * 80, 96 * 80, 80, 1]
    assert given["v_desc_1"].block_shape == [1, 1, 32, config["BLOCK_N"]]
    assert given["q_scale_stride"] == 1 and given["k_scale_stride"] == 0
    sources = {name: source for source, name in pointer_parameters(plan, config)}
    assert sources["v_desc_0"] == len([*tensors, *extras, "out", "lse"]) and sources["q_scale_ptr"] == 3


@pytest.mark.parametrize("dim", [64, 128, 256])
def test_it_compiles_for_hopper(dim, tmp_path, monkeypatch):
    """Both ways are vectors: bytes that threads move one by one would take longer than the attention of short calls."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setenv("ATTNGEN_CACHE", str(tmp_path / "attngen"))
    v = torch.empty(2, 3, 640, dim, dtype=torch.uint8)
    turning = Turning(plan_of(dim), v)
    types = {"v_ptr": "*u8", "turned_ptr": "*u8", "key_range_ptr": "constexpr"}
    signature = {name: types.get(name, "i32") for name in turning.bound.function.arg_names}
    aligned = [
        n for n, name in enumerate(signature) if name in ("v_ptr", "turned_ptr", "seq_turned") or "stride" in name
    ]
    made = triton.compile(
        ASTSource(
            fn=turning.bound.function,
            signature=signature,
            constexprs={(2,): None},
            attrs={(n,): [["tt.divisibility", 16]] for n in aligned},
        ),
        target=GPUTarget("cuda", 90, 32),
        options=turning.bound.source.options,
    )
    assert "ld.global.v4.b32" in made.asm["ptx"] and "st.global.v4.b32" in made.asm["ptx"]


if __name__ == "__main__":
    compare()

"""Gradients on a GPU, at real shapes: no farther from float64 than PyTorch's math is, and the same from run to run."""

import pytest
import torch

from attngen import reference
from attngen.inputs import make_inputs
from attngen.spec.learned import learned_arguments
from attngen.spec.model import Kind, Window
from tests.op.cases import kind_of
from tests.op.math_attention import math_attention
from tests.op.test_gpu import TABLE, op_of, with_dtype

pytestmark = pytest.mark.gpu

MATH = 1.2  # times the error of PyTorch's math in the same dtype
SMALL = {"heads": (8, 2), "head_dim": (64, 64), "dtype": "bfloat16"}
CASES = {name: case for name, case in TABLE.items() if name != "one query"} | {
    "global, both directions": (kind_of(window=Window(64, 64), global_tokens=5, **SMALL), 1111, 1111),
    "dilation": (kind_of(causal=True, dilation=3, window=Window(300, 0), **SMALL), 1000, 1000),
    "always": (kind_of(causal=True, window=Window(99, 0), always_first=4, **SMALL), 1500, 1500),
    "documents by mask": (kind_of(mask="doc[b, i] == doc[b, j]", causal=True, **SMALL), 777, 777),
    "learned gates": (kind_of(score="s * gain[h] + w[i] + tanh(s) * u[h, j]", softcap=20.0, **SMALL), 600, 700),
    "learned bias of the distance": (kind_of(score="s + bias[h, i - j + 32]", **{**SMALL, "scale": 1.0}), 640, 640),
    "learned elements": (kind_of(score="s + e[i // 8, j // 8]", causal=True, sink=True, **SMALL), 500, 500),
    "more queries": (kind_of(causal=True, **SMALL), 1500, 700),
}


def leaves_of(kind: Kind, inputs: dict, dtype: torch.dtype | None = None) -> dict:
    """The inputs with those that have a gradient as leaves, in another dtype where one is given."""
    names = ("q", "k", "v", *learned_arguments(kind))
    made = {name: inputs[name].detach().clone() for name in names}
    made = {name: x if dtype is None else x.to(dtype) for name, x in made.items()}
    return inputs | {name: x.requires_grad_() for name, x in made.items()}


def gradients(kind: Kind, leaves: dict, out: torch.Tensor, dout: torch.Tensor) -> dict[str, torch.Tensor]:
    names = ("q", "k", "v", *learned_arguments(kind))
    return dict(zip(names, torch.autograd.grad(out, [leaves[name] for name in names], dout.to(out.dtype)), strict=True))


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def check(kind: Kind, inputs: dict, tmp_path) -> None:
    op = op_of(kind, tmp_path)
    leaves = leaves_of(kind, inputs)
    out = op(**leaves)
    dout = torch.randn_like(out)
    made, again = (gradients(kind, leaves, op(**leaves), dout) for _ in range(2))
    exact = reference.gradients(kind, dout, None, **inputs)
    own = leaves_of(kind, inputs)
    by_math = gradients(kind, own, math_attention(kind, **own), dout)
    for name, found in made.items():
        assert torch.equal(found, again[name]), f"the gradient of {name} has other bits in a second run"
        assert torch.isfinite(found).all(), name
        allowed = MATH * relative(by_math[name], exact[name])
        assert relative(found, exact[name]) <= allowed, (name, relative(found, exact[name]), allowed)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", CASES)
def test_no_farther_off_than_math(name, dtype, tmp_path):
    kind, seq_q, seq_k = CASES[name]
    kind = with_dtype(kind, dtype)
    check(kind, make_inputs(kind, 2, seq_q, seq_k, device="cuda"), tmp_path)

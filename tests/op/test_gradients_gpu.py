"""Gradients on a GPU, at real shapes: no farther from float64 than PyTorch's math is, and the same from run to run."""

import pytest
import torch

from attngen import reference
from attngen.inputs import make_inputs
from attngen.op import KindOp
from attngen.spec.learned import learned_arguments
from attngen.spec.model import Blocks, Kind, Window
from tests.op.cases import kind_of, strided
from tests.op.math_attention import math_attention
from tests.op.test_gpu import TABLE, op_of, pad_and_move, with_dtype

pytestmark = pytest.mark.gpu

MATH = 1.2  # times the error of PyTorch's math in the same dtype
SMALL = {"heads": (8, 2), "head_dim": (64, 64), "dtype": "bfloat16"}
CASES = {name: case for name, case in TABLE.items() if name != "one query"} | {
    "global, both directions": (kind_of(window=Window(64, 64), global_tokens=5, **SMALL), 1111, 1111),
    "dilation": (kind_of(causal=True, dilation=3, window=Window(300, 0), **SMALL), 1000, 1000),
    "always": (kind_of(causal=True, window=Window(99, 0), always_first=4, **SMALL), 1500, 1500),
    "documents by mask": (kind_of(mask="doc[b, i] == doc[b, j]", causal=True, **SMALL), 777, 777),
    "learned gates": (kind_of(score="s * (gain[h] + w[i]) + tanh(s) * u[h, j]", softcap=20.0, **SMALL), 600, 700),
    "learned bias of the distance": (kind_of(score="s + bias[h, i - j + 32]", **{**SMALL, "scale": 1.0}), 640, 640),
    "learned elements": (kind_of(score="s + e[i // 8, j // 8]", causal=True, sink=True, **SMALL), 500, 500),
    "more queries": (kind_of(causal=True, **SMALL), 1500, 700),
    "documents": (kind_of(causal=True, documents=True, **SMALL), 900, 900),
    "documents in a window, sink": (kind_of(documents=True, window=Window(40, 40), sink=True, **SMALL), 700, 700),
    "blocks": (kind_of(blocks=Blocks(64), causal=True, **SMALL), 1000, 1000),
    "blocks of 128": (kind_of(blocks=Blocks(128), **{**SMALL, "head_dim": (128, 128)}), 700, 900),
}


def leaves_of(kind: Kind, inputs: dict, dtype: torch.dtype | None = None) -> dict:
    """The inputs with those that have a gradient as leaves, in another dtype where one is given."""
    names = ("q", "k", "v", *learned_arguments(kind))
    made = {name: inputs[name].detach().clone() for name in names}
    made = {name: x if dtype is None else x.to(dtype) for name, x in made.items()}
    return inputs | {name: x.requires_grad_() for name, x in made.items()}


def called(op: KindOp, leaves: dict) -> torch.Tensor:
    """out (batch, heads, seq_q, v dim) of an op, which takes packed tensors of documents and ``blocks`` of a table."""
    if op.kind.documents:
        packed = {name: leaves[name][0].transpose(0, 1) for name in "qkv"}
        return op(**{**leaves, **packed}).transpose(0, 1)[None]
    if op.kind.blocks is not None:
        lists = {name: leaves[name] for name in ("block_count", "block_index")}
        given = torch.arange(lists["block_index"].shape[-1], device="cuda") < lists["block_count"][..., None]
        blocks = torch.where(given, lists["block_index"], -1)
        return op(**{name: x for name, x in leaves.items() if name not in lists}, blocks=blocks)
    return op(**leaves)


def gradients(kind: Kind, leaves: dict, out: torch.Tensor, dout: torch.Tensor) -> dict[str, torch.Tensor]:
    names = ("q", "k", "v", *learned_arguments(kind))
    return dict(zip(names, torch.autograd.grad(out, [leaves[name] for name in names], dout.to(out.dtype)), strict=True))


def detached(x):
    return x.detach() if isinstance(x, torch.Tensor) else x


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def check(kind: Kind, inputs: dict, tmp_path) -> None:
    op = op_of(kind, tmp_path)
    leaves = leaves_of(kind, inputs)
    dout = torch.randn_like(called(op, leaves))
    made, again = (gradients(kind, leaves, called(op, leaves), dout) for _ in range(2))
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


def test_padding_never_reaches_a_gradient(tmp_path):
    """Keys that are not valid hold NaN, and so does what surrounds the views that q, k, v and the gradient are."""
    kind = kind_of(causal=True, window=Window(200, 0), sink=True, **SMALL)
    inputs = make_inputs(kind, 2, 500, 700, device="cuda")
    pad_and_move(inputs)
    inputs |= {name: strided(inputs[name]) for name in ("q", "k", "v")}
    op, leaves = (
        op_of(kind, tmp_path),
        inputs | {name: inputs[name].requires_grad_() for name in ("q", "k", "v", "sink")},
    )
    out = op(**leaves)
    dout = strided(torch.randn_like(out))
    made = gradients(kind, leaves, out, dout)
    exact = reference.gradients(kind, dout, None, **{name: detached(x) for name, x in inputs.items()})
    for name, found in made.items():
        assert torch.isfinite(found).all(), name
        assert relative(found, exact[name]) <= 8e-3, name


def test_documents_wait_for_nothing(tmp_path):
    """Neither pass looks at the boundaries from the host."""
    kind = kind_of(causal=True, documents=True, **SMALL)
    op, leaves = op_of(kind, tmp_path), leaves_of(kind, make_inputs(kind, 2, 700, 700, device="cuda"))

    def step():
        out = called(op, leaves)
        return torch.autograd.grad(out, [leaves[name] for name in "qkv"], torch.ones_like(out))

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_training_step_in_a_graph(tmp_path):
    kind = kind_of(causal=True, score="s + bias[h, i - j + 32]", **SMALL)
    op, leaves = op_of(kind, tmp_path), leaves_of(kind, make_inputs(kind, 1, 400, 400, device="cuda"))
    dout = torch.randn(1, 8, 400, 64, device="cuda", dtype=torch.bfloat16)

    def step():
        return gradients(kind, leaves, op(**leaves), dout)

    expected = {name: x.clone() for name, x in step().items()}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = step()
    for x in made.values():
        x.fill_(float("nan"))
    graph.replay()
    for name, x in made.items():
        assert torch.equal(x, expected[name]), name


def test_a_training_step_compiled(tmp_path):
    """By inductor, whole, for other lengths without another compilation."""
    torch._dynamo.reset()
    kind = kind_of(causal=True, sink=True, **SMALL)
    op = op_of(kind, tmp_path)

    def step(q, k, v, sink):
        return op(q * 2, k, v, sink=sink).float().square().sum()

    compiled = torch.compile(step, fullgraph=True, dynamic=True)
    for seq in (256, 300, 515):
        leaves = leaves_of(kind, make_inputs(kind, 1, seq, seq, device="cuda"))
        names = ("q", "k", "v", "sink")
        made = torch.autograd.grad(compiled(**leaves), [leaves[name] for name in names])
        expected = torch.autograd.grad(step(**leaves), [leaves[name] for name in names])
        for name, x, right in zip(names, made, expected, strict=True):
            assert relative(x, right.double()) < 1e-2, name

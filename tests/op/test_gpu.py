"""Launches on a GPU: numerics at real shapes, graphs, streams, strides, and how often something is compiled."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import attngen
from attngen import reference
from attngen.inputs import make_inputs
from attngen.op import KindOp, Launcher
from attngen.plan import plan_forward
from attngen.plan.space import default_config
from attngen.problem import Problem
from attngen.spec.model import Kind, Spec, Window
from attngen.target import detect
from tests.op.cases import kind_of, strided

pytestmark = pytest.mark.gpu

HALF_ULP = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24}
D64, D80, D128, D256 = ({"heads": (8, 2), "head_dim": (d, d), "dtype": "bfloat16"} for d in (64, 80, 128, 256))
TABLE = {
    "full": (kind_of(**D64), 1024, 1024),
    "causal": (kind_of(causal=True, **D128), 2048, 2048),
    "causal, ragged": (kind_of(causal=True, **D128), 777, 1999),
    "one query": (kind_of(causal=True, **D128), 1, 1500),
    "small window": (kind_of(window=Window(64, 64), **{**D64, "heads": (4, 4)}), 2048, 2048),
    "window of a group, sink": (kind_of(causal=True, window=Window(127, 0), sink=True, **D64), 1999, 1999),
    "wide heads, window, softcap": (kind_of(causal=True, window=Window(511, 0), softcap=50.0, **D256), 1500, 1500),
    "two chunks of head_dim": (kind_of(causal=True, chunk=500, **D80), 1200, 1200),
    "values narrower": (kind_of(causal=True, **{**D64, "head_dim": (192, 128)}), 1024, 1024),
    "alibi": (kind_of(causal=True, alibi=True, **D64), 1024, 1024),
    "prefix and global tokens": (kind_of(causal=True, prefix="argument", global_tokens=3, **D64), 900, 900),
    "mask and score": (kind_of(mask="j <= i and kept[j] < 1", score="s * gain + bias[h, i - j]", **D64), 1000, 1000),
}
WITH_SDPA = (
    "full",
    "causal",
    "causal, ragged",
    "one query",
    "small window",
    "two chunks of head_dim",
    "values narrower",
)


def op_of(kind: Kind, tmp_path) -> KindOp:
    spec = Spec("gpu", 1, (kind,), (kind.name,))
    return attngen.load(spec, db=str(tmp_path / "tunings.sqlite")).kinds[kind.name]


def with_dtype(kind: Kind, dtype: str) -> Kind:
    return Kind(**{**vars(kind), "dtype": dtype})


def default_of(kind: Kind, seq_q: int, seq_k: int):
    problem = Problem("forward", kind.digest(), 1, seq_q, seq_k)
    return default_config(plan_forward(kind), detect(), problem)


def relative(out: torch.Tensor, exact: torch.Tensor) -> float:
    return float((out.double() - exact).norm() / exact.norm())


def check(kind: Kind, out: torch.Tensor, lse: torch.Tensor, inputs: dict, bound: float | None = None) -> None:
    """out and lse against the reference; ``bound`` is of out's relative L2 error."""
    exact_out, exact_lse = reference.attention(kind, **inputs)
    unseen = exact_lse == -math.inf
    assert torch.equal(lse == -math.inf, unseen)
    assert not out[unseen].any()
    assert torch.isfinite(out).all()
    # Probabilities and the result are rounded to the dtype once each, by at most half a unit.
    products = 2.0**-24 * (kind.head_dim.qk + inputs["k"].shape[2])
    assert relative(out, exact_out) <= (bound or 2 * HALF_ULP[kind.dtype] + products)
    largest = float(exact_lse.masked_fill(unseen, 0).abs().max()) + 8
    # exp2 and log2 of the GPU are approximate to 2 units in the last place of float32.
    assert float((lse - exact_lse).masked_fill(unseen, 0).abs().max()) <= 4 * 2.0**-24 * kind.head_dim.qk * largest


def pad_and_move(inputs: dict) -> None:
    """Keys of two sequences outside the valid ones hold NaN, and the second's queries stand among its keys."""
    seq_q, seq_k = inputs["q"].shape[2], inputs["k"].shape[2]
    ranges = [[0, seq_k - 100], [37, seq_k]]
    for b, (first, end) in enumerate(ranges):
        for tensor in (inputs["k"], inputs["v"]):
            tensor[b, :, :first] = tensor[b, :, end:] = float("nan")
    inputs["key_range"] = torch.tensor(ranges, dtype=torch.int32, device="cuda")
    inputs["offsets"] = torch.tensor([seq_k - seq_q, 5], dtype=torch.int32, device="cuda")


def math_error(kind: Kind, inputs: dict) -> float:
    """The relative L2 error of SDPA's math backend, its intermediate results in the dtype too."""
    q, k, v = inputs["q"], inputs["k"], inputs["v"]
    seen = reference.visible(kind, q.shape[2], k.shape[2], device=q.device)
    group = kind.heads.group
    allowed = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            out = scaled_dot_product_attention(
                q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), attn_mask=seen, scale=kind.scale
            )
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(allowed)
    return relative(out, reference.attention(kind, **inputs)[0])


@pytest.mark.parametrize("name", TABLE)
def test_numerics_in_bfloat16(name, tmp_path):
    kind, seq_q, seq_k = TABLE[name]
    inputs = make_inputs(kind, 2, seq_q, seq_k, device="cuda")
    out, lse = op_of(kind, tmp_path)(**inputs, return_lse=True)
    check(kind, out, lse, inputs, 1.1 * math_error(kind, inputs) if name in WITH_SDPA else None)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", ["causal, ragged", "window of a group, sink", "alibi"])
def test_numerics_in_other_dtypes(name, dtype, tmp_path):
    kind, seq_q, seq_k = TABLE[name]
    kind = with_dtype(kind, dtype)
    inputs = make_inputs(kind, 1, seq_q, seq_k, device="cuda")
    out, lse = op_of(kind, tmp_path)(**inputs, return_lse=True)
    sdpa = name in WITH_SDPA and dtype == "float16"
    check(kind, out, lse, inputs, 1.1 * math_error(kind, inputs) if sdpa else None)


@pytest.mark.parametrize("name", ["causal, ragged", "window of a group, sink", "two chunks of head_dim"])
def test_pointer_loads(name):
    kind, seq_q, seq_k = TABLE[name]
    inputs = make_inputs(kind, 2, seq_q, seq_k, device="cuda")
    config = default_of(kind, seq_q, seq_k).replace(loads="pointer", BLOCK_N=32)
    check(kind, *Launcher(plan_forward(kind), config)(**inputs), inputs)


@pytest.mark.parametrize("name", ["full", "causal, ragged", "small window", "window of a group, sink"])
def test_padding_and_offsets(name, tmp_path):
    """Keys outside the valid ones hold NaN, and the second sequence's queries stand among its keys."""
    kind, seq_q, seq_k = TABLE[name]
    inputs = make_inputs(kind, 2, seq_q, seq_k, device="cuda")
    pad_and_move(inputs)
    out, lse = op_of(kind, tmp_path)(**inputs, return_lse=True)
    check(kind, out, lse, inputs)


@pytest.mark.parametrize("name", ["causal, ragged", "window of a group, sink"])
def test_three_launches_are_bitwise_equal(name, tmp_path):
    kind, seq_q, seq_k = TABLE[name]
    inputs, op = make_inputs(kind, 2, seq_q, seq_k, device="cuda"), op_of(kind, tmp_path)
    first = op(**inputs, return_lse=True)
    for _ in range(2):
        for made, expected in zip(op(**inputs, return_lse=True), first, strict=True):
            assert torch.equal(made, expected)


@pytest.mark.parametrize("name", ["causal", "window of a group, sink"])
def test_strided_views(name, tmp_path):
    kind, seq_q, seq_k = TABLE[name]
    inputs, op = make_inputs(kind, 2, seq_q, seq_k, device="cuda"), op_of(kind, tmp_path)
    views = {**inputs, **{tensor: strided(inputs[tensor]) for tensor in "qkv"}}
    out, lse = op(**views, return_lse=True)
    assert out.stride(1) < out.stride(2), "laid out like q"
    check(kind, out, lse, inputs)


@pytest.mark.parametrize("name", ["causal", "small window"])
def test_cuda_graphs(name, tmp_path):
    """A captured call replays to the same bits, and follows its inputs when they change in place."""
    kind, seq_q, seq_k = TABLE[name]
    inputs, op = make_inputs(kind, 1, seq_q, seq_k, device="cuda"), op_of(kind, tmp_path)
    expected = op(**inputs, return_lse=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        op(**inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = op(**inputs, return_lse=True)
    graph.replay()
    assert all(torch.equal(made, wanted) for made, wanted in zip(captured, expected, strict=True))
    inputs["q"].copy_(make_inputs(kind, 1, seq_q, seq_k, device="cuda", seed=1)["q"])
    graph.replay()
    assert all(torch.equal(made, wanted) for made, wanted in zip(captured, op(**inputs, return_lse=True), strict=True))


def test_another_stream(tmp_path):
    """The launch goes to the current stream: it sees what was written there just before."""
    kind, seq_q, seq_k = TABLE["causal"]
    inputs, op = make_inputs(kind, 1, seq_q, seq_k, device="cuda"), op_of(kind, tmp_path)
    expected = op(**inputs)
    late = {**inputs, "q": torch.zeros_like(inputs["q"])}
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        late["q"].copy_(inputs["q"])
        made = op(**late)
    stream.synchronize()
    assert torch.equal(made, expected)


LENGTHS = [
    (1, 1),
    (1, 100),
    (16, 16),
    (17, 33),
    (100, 1),
    (128, 128),
    (255, 1000),
    (1000, 999),
    (1024, 1024),
    (2047, 2049),
]


@pytest.mark.parametrize("loads", ["pointer", "descriptor"])
def test_new_lengths_compile_nothing(loads):
    kind = kind_of(mask="document[b, i] == document[b, j]", score="s + bias[h, i - j]", causal=True, **D64)
    problem = Problem("forward", kind.digest(), 1, 1024, 1024)
    config = default_config(plan_forward(kind), detect(), problem, able=lambda config: config.get("loads") == loads)
    if config["loads"] != loads:
        pytest.skip("no copy engine here")
    launcher = Launcher(plan_forward(kind), config)
    for batch, (seq_q, seq_k) in enumerate(LENGTHS, 1):
        inputs = make_inputs(kind, batch, seq_q, seq_k, device="cuda")
        inputs["document"] = torch.randint(0, 3, (batch, seq_k), device="cuda", dtype=torch.int32)
        inputs["bias"] = torch.randn(8, batch + 5, device="cuda")
        check(kind, *launcher(**inputs), inputs)
    (compiled, *_) = launcher.function.device_caches[torch.cuda.current_device()]
    assert len(compiled) == 1


def test_tensors_without_alignment_take_pointer_loads(tmp_path):
    """Each of q, k and v in turn begins 2 bytes past a multiple of 16, after aligned ones were prepared."""
    kind, seq_q, seq_k = TABLE["causal, ragged"]
    inputs, op = make_inputs(kind, 1, seq_q, seq_k, device="cuda"), op_of(kind, tmp_path)
    check(kind, *op(**inputs, return_lse=True), inputs)
    for name in ("k", "q", "v"):
        shifted = {**inputs, name: shift(inputs[name])}
        assert shifted[name].data_ptr() % 16 == 2
        if name in ("k", "v"):
            assert op.config(shifted["q"], shifted["k"], shifted["v"]).config["loads"] == "pointer"
        else:
            assert "loads" in op.config(shifted["q"], shifted["k"], shifted["v"]).config  # no Gluon, which needs q too
        check(kind, *op(**shifted, return_lse=True), inputs)


def shift(tensor: torch.Tensor) -> torch.Tensor:
    base = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=tensor.device)
    return base[1:].view(tensor.shape).copy_(tensor)


def test_empty_calls(tmp_path):
    kind = TABLE["causal"][0]
    op = op_of(kind, tmp_path)
    for batch, seq_q, seq_k in ((0, 5, 5), (1, 0, 5), (1, 5, 0)):
        out, lse = op(**make_inputs(kind, batch, seq_q, seq_k, device="cuda"), return_lse=True)
        assert out.shape == (batch, 8, seq_q, 128)
        assert not out.any()
        assert (lse == -math.inf).all()

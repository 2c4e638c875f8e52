"""FP8: kernels in the interpreter against the reference, scales of every form, and calls and GPUs that do not fit."""

import itertools

import pytest
import torch

import attngen
from attngen import reference
from attngen.errors import CallError, NotGeneratedError
from attngen.inputs import LARGEST_FLOAT8, make_inputs
from attngen.plan import plan_forward
from attngen.plan.space import default_config, feasible, forward_space
from attngen.problem import Problem
from attngen.source import compile_source
from attngen.spec import parse_spec
from attngen.spec.model import Kind, Window
from attngen.target import get_target
from attngen.verify.judge import l2_error
from tests.op.cases import Case, config_of, kind_of
from tests.op.test_interpreter import PADDED, check

FIELDS = {
    "every key": {},
    "causal": {"causal": True},
    "causal window": {"causal": True, "window": Window(12, 0)},
    "global tokens": {"window": Window(4, 4), "global_tokens": 2},
    "mask by head": {"mask": "h % 2 == 0 or abs(i - j) <= 9"},
    "softcap": {"softcap": 2.5},
    "alibi": {"alibi": True},
    "score": {"score": "s + bias[h, i - j + 30]"},
    "sink": {"sink": True, "causal": True},
    "softcap and sink": {"softcap": 3.0, "sink": True},
}
SCALES = ("q_scale", "k_scale", "v_scale")


def float8(heads=(4, 2), head_dim=(32, 32), **fields):
    return kind_of(heads=heads, head_dim=head_dim, dtype="float8_e4m3", **fields)


def small(**values):
    return config_of(**{"BLOCK_M": 32, "BLOCK_N": 32, **values})


@pytest.mark.parametrize("field", FIELDS)
def test_each_field(interpret, field):
    """Pointer loads, then descriptors, two heads to a tile, over padded keys that hold NaN."""
    kind = float8(**FIELDS[field])
    check(interpret(Case(kind, small(), seq_q=70, seq_k=70)))
    check(interpret(Case(kind, small(loads="descriptor", PACK_HEADS=2), **PADDED)))


@pytest.mark.parametrize("fields", [{}, {"softcap": 2.5, "sink": True}], ids=["plain", "softcap"])
@pytest.mark.parametrize("loads", ["pointer", "descriptor"])
def test_the_window_schedule(interpret, fields, loads):
    kind = float8(window=Window(9, 9), **fields)
    check(interpret(Case(kind, small(schedule="window", loads=loads), **PADDED)))


@pytest.mark.parametrize("per_head", list(itertools.product([False, True], repeat=3)), ids=str)
@pytest.mark.parametrize("pack", [1, 2])
def test_scales_of_a_tensor_or_of_its_heads(interpret, per_head, pack):
    """A head's scale is so many times another's that a wrong one would be seen."""
    scales = tuple(zip(SCALES, per_head, strict=True))
    check(interpret(Case(float8(causal=True), small(PACK_HEADS=pack), scales=scales)))


def test_small_weights_are_not_lost(interpret):
    """300 keys of weight exp(-6.5), beside one of weight 1: e4m3 holds such numbers badly unless they are scaled."""
    kind = float8(score="where(j > 0, 0.0, 6.5)")
    check(interpret(Case(kind, small(), seq_q=8, seq_k=300, batch=1, equal_values=True)))


@pytest.mark.parametrize("head_dim", [(16, 16), (80, 48), (128, 128), (192, 128), (256, 256)], ids=str)
def test_head_dims(interpret, head_dim):
    """Products take at least 32 columns: the last chunk of 80 is padded to that."""
    kind = float8(heads=(2, 1), head_dim=head_dim, causal=True)
    assert min(chunk.width for chunk in plan_forward(kind).qk_chunks) >= 32
    check(interpret(Case(kind, small(loads="descriptor"), batch=1)))


@pytest.mark.parametrize("lengths", [(1, 1), (1, 40), (40, 1), (33, 17), (0, 5), (5, 0)], ids=str)
def test_lengths(interpret, lengths):
    check(interpret(Case(float8(causal=True), small(), *lengths)))


def test_rows_that_see_no_key_and_strided_views(interpret):
    ranges = {"key_range": ((7, 7), (4, 9)), "offsets": (0, -10)}
    check(interpret(Case(float8(causal=True, sink=True), small(), **ranges)))
    check(interpret(Case(float8(window=Window(6, 6)), small(), strided=True)))


def test_a_result_is_that_of_bfloat16_but_for_rounding():
    """What e4m3 does to q, k and v is not small, so the same numbers are given to both."""
    kind = float8(causal=True)
    inputs = make_inputs(kind, 1, 60, 60, device="cpu")
    out, lse = op_of(kind)(**inputs, return_lse=True)
    full = {name: reference.dequantised(inputs, name).bfloat16() for name in "qkv"}
    other = op_of(Kind(**{**vars(kind), "dtype": "bfloat16"}))
    expected, expected_lse = other(**full, return_lse=True)
    assert out.dtype == expected.dtype == torch.bfloat16
    assert l2_error(out, expected.double()) < 2.0**-6
    torch.testing.assert_close(lse, expected_lse, atol=0.02, rtol=0.01)


def test_inputs_fill_the_range():
    inputs = make_inputs(float8(), 2, 50, 70, device="cpu")
    for name in "qkv":
        assert inputs[name].dtype == torch.float8_e4m3fn
        assert inputs[name].float().abs().max() == LARGEST_FLOAT8
        assert inputs[f"{name}_scale"].shape == ((1,) if name == "k" else (inputs[name].shape[1],))
    sizes = reference.dequantised(inputs, "q").pow(2).mean((0, 2, 3)).sqrt()
    assert 1.2 < sizes.max() / sizes.min() < 3.1


def op_of(kind):
    spec = parse_spec("{name: float8, heads: 1, head_dim: 16, layers: 1}")
    return attngen.load(type(spec)(spec.name, 1, (kind,), (kind.name,)))[kind.name]


WRONG = [
    (
        "none",
        {"q_scale": None},
        "kind 'kind' needs the argument 'q_scale': what q is multiplied by, float32",
    ),
    ("number", {"k_scale": 0.5}, "'k_scale' is float; a torch.Tensor is needed"),
    ("query heads", {"q_scale": torch.ones(2)}, "'q_scale' has shape (2,); one element or (4,) is needed"),
    ("KV heads", {"v_scale": torch.ones(4)}, "'v_scale' has shape (4,); one element or (2,) is needed"),
    ("each row", {"k_scale": torch.ones(2, 37)}, "'k_scale' has shape (2, 37); one element or (2,) is needed"),
    ("dtype", {"k_scale": torch.ones(2).half()}, "'k_scale' is float16; float32 is needed"),
    ("strides", {"k_scale": torch.ones(4)[::2]}, "'k_scale' is not contiguous; call contiguous()"),
    ("device", {"k_scale": torch.ones(2, device="meta")}, "'k_scale' is on meta and q on cpu; one device is needed"),
    (
        "q",
        {"q": torch.zeros(2, 4, 37, 32)},
        "q is float32; the spec says float8_e4m3: convert it, or load the spec with dtype='float32'",
    ),
    (
        "another FP8",
        {"v": torch.zeros(2, 2, 37, 32).to(torch.float8_e5m2)},
        "v is float8_e5m2; the spec says float8_e4m3: convert it",
    ),
]


@pytest.mark.parametrize(("changes", "message"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_wrong_calls(changes, message):
    inputs = make_inputs(float8(), 2, 37, 37, device="cpu")
    with pytest.raises(CallError) as caught:
        op_of(float8())(**{**inputs, **changes})
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_scale_of_no_dimension_is_one_for_all_heads():
    inputs = make_inputs(float8(), 1, 9, 9, device="cpu")
    op = op_of(float8())
    torch.testing.assert_close(op(**inputs), op(**{**inputs, "k_scale": inputs["k_scale"].reshape(())}))


def test_other_dtypes_take_no_scales():
    kind = kind_of(dtype="bfloat16")
    with pytest.raises(CallError, match="takes no argument 'q_scale'"):
        op_of(kind)(**make_inputs(kind, 1, 9, 9, device="cpu"), q_scale=torch.ones(1))


REFUSED = {
    "a100": "kind 'kind' is in float8_e4m3: a100 is sm_80, and products of FP8 begin with sm_89",
    "mi300x": "kind 'kind' is in float8_e4m3: mi300x's FP8 is e4m3fnuz, another format of numbers than e4m3",
}


@pytest.mark.parametrize("name", REFUSED)
def test_gpus_without_such_products_are_refused(name):
    plan, target = plan_forward(float8()), get_target(name)
    for refused in (default_config, forward_space):
        with pytest.raises(NotGeneratedError) as caught:
            refused(plan, target)
        assert str(caught.value) == REFUSED[name]
    assert feasible(plan, default_config(plan, get_target("rtx4090")), target) in REFUSED[name]


@pytest.mark.parametrize("name", ["rtx4090", "h100", pytest.param("b200", marks=pytest.mark.slow)])
@pytest.mark.parametrize("fields", [{"causal": True}, {"window": Window(64, 64), "softcap": 5.0}], ids=str)
def test_kernels_compile_without_spills(name, fields, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setenv("ATTNGEN_CACHE", str(tmp_path / "attngen"))
    target = get_target(name)
    kind = float8(heads=(8, 2), head_dim=(128, 128), **fields)
    plan = plan_forward(kind)
    config = default_config(plan, target, Problem("forward", kind.digest(), 1, 4096, 4096))
    resources = compile_source(plan, config, target)
    assert resources.spills == 0 and resources.shared <= target.shared_per_block
    assert (config["schedule"] == "hopper") == (name == "h100" and kind.window is None)

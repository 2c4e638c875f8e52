"""Triton's front end takes every kernel that the interpreter runs: types and constants, which the interpreter skips."""

import pytest

from attngen.config import Config
from attngen.plan import plan_forward
from attngen.source import cross, load_source, render
from attngen.spec.model import Heads, Kind, Window
from tests.op.cases import Case, config_of, kind_of
from tests.op.test_interpreter import FIELDS, windowed


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTNGEN_CACHE", str(tmp_path / "attngen"))


def intermediate(kind: Kind, config: Config, types: dict[str, str] | None = None) -> str:
    """The kernel in Triton's own intermediate form, for sm_90. ``types`` replaces the types of parameters."""
    from triton._C.libtriton import ir
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler.compiler import make_backend

    plan = plan_forward(kind)
    source = render(plan, config)
    function = load_source(source)
    signature = cross.launch_signature(source, config)
    for name, type_ in (types or {}).items():
        assert name in signature["signature"]
        signature["signature"][name] = type_
        if type_ == "constexpr":
            signature["constexprs"][(source.parameters.index(name),)] = 1
    target = GPUTarget("cuda", 90, 32)
    backend = make_backend(target)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    options = backend.parse_options(source.options)
    made = ASTSource(fn=function, **signature).make_ir(
        target, options, backend.get_codegen_implementation(options), backend.get_module_map(), context
    )
    return str(made)


@pytest.mark.parametrize("field", FIELDS)
def test_each_field(field):
    kind = FIELDS[field]
    packed = Kind(**{**vars(kind), "heads": Heads(4, 2)})
    intermediate(kind, config_of())
    intermediate(packed, config_of(loads="descriptor", PACK_HEADS=2))
    if windowed(kind):
        intermediate(packed, config_of(schedule="window"))
        intermediate(kind, config_of(schedule="window", loads="descriptor"))


@pytest.mark.parametrize("stride", ["i32", "constexpr"])
@pytest.mark.parametrize("fields", [{}, {"softcap": 5.0, "sink": True, "window": Window(9, 9)}], ids=str)
def test_fp8_with_one_scale_or_one_a_head(fields, stride):
    kind = kind_of(heads=(4, 2), head_dim=(32, 80), dtype="float8_e4m3", **fields)
    scales = {f"{name}_scale_stride": stride for name in "qkv"}
    for values in ({}, {"loads": "descriptor", "PACK_HEADS": 2}, {"schedule": "window"} if fields else {}):
        assert "f8E4M3FN" in intermediate(kind, config_of(BLOCK_N=32, **values), scales)


@pytest.mark.parametrize("element", ["*i1", "*i8", "*u8", "*i32", "*i64", "*bf16", "*fp64"])
def test_tensors_of_any_dtype(element):
    kind = kind_of(mask="doc[b, i] == doc[b, j] and keep[j] > 0", score="s + bias[h, i - j]")
    any_type = {f"{name}_ptr": element for name in ("doc", "keep", "bias")}
    assert intermediate(kind, config_of(), any_type)


@pytest.mark.parametrize("parameter", ["bias_size_0", "bias_stride_1", "stride_qh", "stride_ks", "sink_ptr"])
def test_arguments_that_become_constants_or_change_type(parameter):
    """Triton makes an integer argument of 1 a constant, and a large one 64 bits wide."""
    kind = kind_of(score="s + bias[h, 0]", sink=True, window=Window(3, 3))
    if parameter == "sink_ptr":
        assert intermediate(kind, config_of(), {"sink_ptr": "*bf16"})
        return
    assert intermediate(kind, config_of(), {parameter: "constexpr"})
    assert intermediate(kind, config_of(), {parameter: "i64"})


@pytest.mark.parametrize(
    "expression",
    [
        "s + 7 // 2 + 7 % 4 - (-7) // 2 + 2 ** 3 + 2 ** -1 + 1 / 4",
        "s + min(1, 2) + max(3, 4, 5) + abs(-3) + floor(2.5) + floor(3)",
        "s + exp(1) + log(2) + sqrt(3) + tanh(1) + sigmoid(2) + pi",
        "s * (h + 1) / (b + 1) + tanh(h) + sqrt(b) + h % 3 + b // 2",
        "s if h < 2 else where(b == 0, 1, 2)",
        "s if h < 2 and not b == 1 or i < j else 0",
        "s + gain if gain > 0.5 else s - floor(gain)",
        "s + a[0] + a[-1] + a[h % 2] + a[min(i, 3)] + a[floor(i / 2)]",
        "s + i ** 2 + j ** 0 - i ** 3 % 5 + (i - j) ** -2",
        "max(s, i) + min(s, 0) + abs(s) + max(i, j) - -i",
        "where(True, s, 0) + where(i == j, inf, -inf)",
    ],
)
def test_expressions_of_constants_and_scalars(interpret, expression):
    kind = kind_of(heads=(4, 2), score=expression)
    intermediate(kind, config_of())
    intermediate(kind, config_of(PACK_HEADS=2))
    if "inf" not in expression and "-2" not in expression:  # the reference itself is infinite there
        for pack in (1, 2):
            outcome = interpret(Case(kind, config_of(PACK_HEADS=pack), seq_q=5, seq_k=9))
            assert outcome.out_error <= 4 * outcome.out_bound  # scores are larger than their logits here

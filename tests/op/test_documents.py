"""Packed documents: kernels in Triton's interpreter, and calls, against the same documents one at a time."""

import pytest
import torch
import torch._dynamo.testing

import attngen
from attngen.spec import parse_spec
from attngen.spec.model import Kind
from tests.op.cases import Case, config_of, kind_of
from tests.op.test_gradients import gradients  # noqa: F401
from tests.op.test_interpreter import FIELDS, check, windowed

PACKED = {name: Kind(**{**vars(kind), "documents": True}) for name, kind in FIELDS.items() if kind.compress is None}
FEW = ["every key", "causal", "causal window", "prefix argument", "global tokens", "mask by head", "all"]


def often(fields, few) -> list:
    """The few of ``fields`` that every run takes, and the others in the slow ones."""
    return [field if field in few else pytest.param(field, marks=pytest.mark.slow) for field in fields]


@pytest.mark.parametrize("field", often(PACKED, FEW))
def test_each_field(interpret, field):
    check(interpret(Case(PACKED[field], config_of(loads="descriptor"), seq_q=19, seq_k=23)))


@pytest.mark.parametrize("field", often(FEW, FEW[:2]))
def test_pointer_loads_and_packed_heads(interpret, field):
    check(interpret(Case(PACKED[field], config_of(PACK_HEADS=2, HEADS_TOGETHER=3), seq_q=19, seq_k=23)))


@pytest.mark.parametrize("field", [field for field in FEW if windowed(PACKED[field])])
def test_windows_in_their_schedule(interpret, field):
    check(interpret(Case(PACKED[field], config_of(schedule="window", loads="descriptor"), seq_q=19, seq_k=23)))


@pytest.mark.parametrize("field", often([*FEW, "learned"], ["causal window", "all", "learned"]))
def test_gradients(gradients, field):  # noqa: F811
    kinds = PACKED | {"learned": kind_of(documents=True, score="s * gain[h] + w[b, i] + tanh(s) * u[j]", alibi=True)}
    gradients(Case(kinds[field], config_of(), seq_q=19, seq_k=23), of_lse=True)


@pytest.mark.parametrize(
    "ends",
    [
        ((0, 40), (0, 40)),
        ((0, 0, 40), (0, 7, 7)),
        ((0, 17, 17, 30), (0, 0, 20, 33)),
        ((0, 3), (0, 5)),
        ((0, 0), (0, 0)),
    ],
    ids=str,
)
def test_boundaries(interpret, gradients, ends):  # noqa: F811
    """Documents without queries or keys, and tokens after the last one, which see nothing."""
    case = Case(kind_of(documents=True, causal=True, sink=True), config_of(), seq_q=20, seq_k=20, ends=ends)
    check(interpret(case))
    gradients(case)


SPEC = """
name: model
heads: {query: 4, kv: 2}
head_dim: {qk: 16, v: 24}
dtype: float32
layers: 3
documents: true
kinds:
  plain: {causal: true}
  window: {window: {half: 3}, sink: learned}
  biased: {score: "s + bias[h, j] * gain[b]", prefix: argument, causal: true}
pattern: [plain, window, biased]
"""
ENDS = torch.tensor([0, 5, 5, 12, 20], dtype=torch.int32)
EXTRAS = {
    "plain": {},
    "window": {"sink": torch.randn(4)},
    "biased": {
        "bias": torch.randn(4, 9),
        "gain": torch.randn(4),
        "prefix": torch.tensor([2, 1, 0, 3], dtype=torch.int32),
    },
}


@pytest.fixture(scope="module")
def attn():
    return attngen.load(parse_spec(SPEC), db="sqlite://")


def packed(learns: bool = False):
    generator = torch.Generator().manual_seed(0)
    shapes = {"q": (20, 4, 16), "k": (20, 2, 16), "v": (20, 2, 24)}
    return {name: torch.randn(shape, generator=generator).requires_grad_(learns) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", EXTRAS)
def test_a_call_is_each_document_by_itself(attn, kind):
    given, extras = packed(learns=True), EXTRAS[kind]
    out, lse = attn[kind](**given, cu_seqlens_q=ENDS, **extras, return_lse=True)
    assert (out.shape, lse.shape) == ((20, 4, 24), (4, 20))
    assert out.is_contiguous()
    alone = attngen.load(parse_spec(SPEC.replace("documents: true\n", "")), db="sqlite://")[kind]
    for n, (first, end) in enumerate(zip(ENDS[:-1].tolist(), ENDS[1:].tolist(), strict=True)):
        q, k, v = (x[first:end].transpose(0, 1)[None] for x in given.values())
        own = {name: x[n : n + 1] if name in ("prefix", "gain") else x for name, x in extras.items()}
        expected, expected_lse = alone(q, k, v, **own, return_lse=True)
        torch.testing.assert_close(out[first:end], expected[0].transpose(0, 1))
        torch.testing.assert_close(lse[:, first:end], expected_lse[0])


@pytest.mark.parametrize("kind", EXTRAS)
def test_opcheck(attn, kind):
    q, k, v = (x.detach().transpose(0, 1)[None].requires_grad_() for x in packed().values())
    given = EXTRAS[kind] | {"cu_seqlens_q": ENDS, "cu_seqlens_k": ENDS}
    extras = [given[argument.name] for argument in attn[kind].plan.arguments]
    torch.library.opcheck(attn[kind].trained, (q, k, v, *extras))


def test_compiled_once_for_every_length(attn):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(attn.plain, fullgraph=True, backend=counter, dynamic=True)
    for tokens in (20, 25, 31):
        q, k, v = torch.randn(tokens, 4, 16), torch.randn(tokens, 2, 16), torch.randn(tokens, 2, 24)
        torch.testing.assert_close(compiled(q, k, v, cu_seqlens_q=ENDS), attn.plain(q, k, v, cu_seqlens_q=ENDS))
    assert counter.frame_count == 1

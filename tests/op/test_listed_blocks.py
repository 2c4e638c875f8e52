"""Block-sparse attention by a table given at the call: kernels in Triton's interpreter, and calls."""

import pytest
import torch
import torch._dynamo.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import attngen
from attngen.errors import CallError, NotGeneratedError
from attngen.op.block_lists import block_lists, lists_of_table, sorted_lists, turned_lists
from attngen.spec import parse_spec
from attngen.spec.model import Blocks, Window
from tests.op.cases import Case, config_of, kind_of
from tests.op.test_gradients import gradients  # noqa: F401
from tests.op.test_interpreter import check

B16 = Blocks(16)
KINDS = {
    "blocks": kind_of(blocks=B16),
    "causal": kind_of(blocks=B16, causal=True),
    "causal window": kind_of(blocks=Blocks(32), causal=True, window=Window(20, 0), sink=True),
    "chunk and dilation": kind_of(blocks=B16, chunk=24, dilation=2),
    "mask of two loops": kind_of(blocks=B16, mask="i - 40 <= j < i - 25 or i - 8 <= j <= i"),
    "score": kind_of(blocks=B16, score="s + bias[h, j] * gain[h]", alibi=True, softcap=5.0),
}


@pytest.mark.parametrize("loads", [pytest.param("pointer", marks=pytest.mark.slow), "descriptor"])
@pytest.mark.parametrize("kind", KINDS)
def test_forward(interpret, kind, loads):
    check(interpret(Case(KINDS[kind], config_of(loads=loads), seq_q=45, seq_k=61)))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(gradients, kind):  # noqa: F811
    gradients(Case(KINDS[kind], config_of(), seq_q=40, seq_k=50), of_lse=True)


def test_padding_and_offsets(interpret, gradients):  # noqa: F811
    case = Case(KINDS["causal"], config_of(), 40, 50, key_range=((0, 40), (5, 50)), offsets=(10, 3))
    check(interpret(case))
    gradients(case)


tables = st.tuples(st.integers(1, 5), st.integers(1, 7)).flatmap(
    lambda size: st.lists(
        st.lists(st.booleans(), min_size=size[1], max_size=size[1]), min_size=size[0], max_size=size[0]
    )
)


@settings(deadline=None)
@given(tables)
def test_lists_and_their_turning(table):
    table = torch.tensor(table)[None, None]
    count, index = lists_of_table(table)
    for row, (n, entries) in enumerate(zip(count[0, 0].tolist(), index[0, 0].tolist(), strict=True)):
        assert entries[:n] == table[0, 0, row].nonzero().flatten().tolist()
    for made, expected in zip(turned_lists(count, index, table.shape[-1]), lists_of_table(table.mT), strict=True):
        assert torch.equal(made, expected)
    shuffled = torch.where(torch.arange(index.shape[-1]) < count[..., None], index, -1).flip(-1)
    twice = torch.cat((shuffled, shuffled), -1)
    again, ordered = sorted_lists(twice, table.shape[-1])
    assert torch.equal(again, count)
    for row, n in enumerate(count[0, 0].tolist()):
        assert torch.equal(ordered[0, 0, row, :n], index[0, 0, row, :n])


SPEC = "{heads: {query: 4, kv: 2}, head_dim: 16, dtype: float32, layers: 1, causal: true, blocks: {size: 16}}"


@pytest.fixture(scope="module")
def op():
    return attngen.load(parse_spec(SPEC), db="sqlite://").attention


def tensors(seq_q=40, seq_k=50):
    generator = torch.Generator().manual_seed(0)
    shapes = {"q": (2, 4, seq_q, 16), "k": (2, 2, seq_k, 16), "v": (2, 2, seq_k, 16)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_a_call_is_attention_with_that_mask(op):
    table = torch.rand(2, 4, 3, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    given = {name: x.requires_grad_() for name, x in tensors().items()}
    out = op(**given, blocks=table)
    seen = table.repeat_interleave(16, 2)[:, :, :40].repeat_interleave(16, 3)[..., :50]
    seen &= torch.ones(40, 50, dtype=torch.bool).tril(10)
    k, v = (given[name].repeat_interleave(2, 1) for name in "kv")
    expected = torch.nn.functional.scaled_dot_product_attention(given["q"], k, v, attn_mask=seen)
    expected = expected.masked_fill(~seen.any(-1, keepdim=True), 0.0)
    torch.testing.assert_close(out, expected)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)) * seen.any(-1, keepdim=True)
    for made, right in zip(
        *(torch.autograd.grad((x * weights).sum(), list(given.values())) for x in (out, expected)), strict=True
    ):
        torch.testing.assert_close(made, right)
    lists = torch.where(
        torch.arange(4) < table.sum(-1, keepdim=True), table.int().argsort(-1, descending=True), -1
    ).int()
    assert torch.equal(op(**given, blocks=lists.flip(-1)), out)


def test_opcheck_and_one_graph(op):
    table = torch.ones(1, 1, 3, 4, dtype=torch.bool)
    lists = block_lists(op.kind, table, 40, 50, 2)
    torch.library.opcheck(op.trained, (*(x.requires_grad_() for x in tensors().values()), *lists))
    torch._dynamo.reset()
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager", dynamic=True)
    for seq in (50, 64, 90):
        given, blocks = tensors(seq, seq), torch.rand(2, 1, -(-seq // 16), -(-seq // 16)) < 0.5
        torch.testing.assert_close(compiled(**given, blocks=blocks), op(**given, blocks=blocks))


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (None, "kind 'attention' needs the argument 'blocks': which blocks of keys may be seen"),
        (torch.ones(2, 4, 3, 4), "'blocks' is torch.float32; a table of bool, or lists of int32, are needed"),
        (
            torch.ones(2, 4, 3, 5, dtype=torch.bool),
            "'blocks' has shape (2, 4, 3, 5); (batch or 1, heads or 1, 3, 4) is needed for blocks of 16",
        ),
        (
            torch.ones(2, 2, 3, 9, dtype=torch.int32),
            "'blocks' has shape (2, 2, 3, 9); (batch or 1, heads or 1, 3, entries) is needed for blocks of 16",
        ),
    ],
)
def test_wrong_tables(op, blocks, message):
    with pytest.raises(CallError) as error:
        op(**tensors(), blocks=blocks)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("blocks: {size: 40}", "blocks of 40 are not generated; a multiple of 16 would be right"),
        ("blocks: {size: 64}\nprefix: 3", "'prefix' is not generated beside 'blocks'"),
        ("blocks: {size: 64}\nalways: {first: 3}", "'always' is not generated beside 'blocks'"),
        ("blocks: {size: 64}\ndocuments: true", "'documents' is not generated beside 'blocks'"),
    ],
)
def test_what_is_not_generated(field, reason):
    op = attngen.load(parse_spec(f"heads: 2\nhead_dim: 16\ndtype: float32\nlayers: 1\n{field}")).attention
    with pytest.raises(NotGeneratedError, match=reason):
        _ = op.plan

"""What PyTorch makes of the op of a kind that selects keys, and of its selection: graphs, shapes, gradients."""

import pytest
import torch
import torch._dynamo.testing

import attngen
from attngen import CallError, NotGeneratedError
from attngen.inputs_sparse import make_index
from attngen.op import Selector
from attngen.op.sparse_forward import Call
from attngen.spec import parse_spec

LATENT = """
name: graphs
heads: 4
latent: {rank: 32, rope: 16}
causal: true
select: {top_k: 16, indexer: {heads: 8, head_dim: 32}}
"""
GROUPS = """
name: graphs
heads: {query: 4, kv: 2}
head_dim: {qk: 16, v: 24}
dtype: float32
causal: true
sink: learned
select: {top_k: 16, indexer: {heads: 8, head_dim: 32, dtype: float16}}
"""
RANGE = torch.tensor([[0, 40], [3, 50]], dtype=torch.int32)


def op_of(text):
    return attngen.load(parse_spec(text)).attention


def inputs(op, seq_q=20, seq_k=50, batch=2):
    kind, generator = op.kind, torch.Generator().manual_seed(0)
    dtype = getattr(torch, kind.dtype)

    def normal(heads, seq, dim):
        return torch.randn(batch, heads, seq, dim, generator=generator).to(dtype)

    given = {"q": normal(4, seq_q, kind.head_dim.qk), "k": normal(kind.heads.kv, seq_k, kind.head_dim.qk)}
    if kind.latent is None:
        given |= {"v": normal(kind.heads.kv, seq_k, kind.head_dim.v), "sink": torch.randn(4, generator=generator)}
    return given | make_index(kind, batch, seq_q, seq_k, device="cpu")


@pytest.mark.parametrize(("text", "lengths"), [(LATENT, (20, 50)), (GROUPS, (5, 12))], ids=["selected", "whole"])
def test_opcheck(text, lengths):
    op = op_of(text)
    given = inputs(op, *lengths)
    arguments = [(given | {"key_range": RANGE.clamp(max=lengths[1])}).get(name) for name in Call._fields]
    torch.library.opcheck(op.operator, tuple(arguments))


def test_opcheck_of_the_selection():
    op = op_of(LATENT)
    given = inputs(op)
    index = [given[name] for name in ("index_q", "index_k", "index_weights")]
    torch.library.opcheck(op.select.operator, (*index, 2**20, None, RANGE))


@pytest.mark.parametrize("text", [LATENT, GROUPS], ids=["latent", "groups"])
def test_compiled_in_one_graph_for_every_length(text):
    """Also for those at which nothing is selected."""
    torch._dynamo.reset()
    op = op_of(text)  # the first call of its operators is the compiler's
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    def model(**given):
        index = {name: given[name] for name in ("index_q", "index_k", "index_weights")}
        return *op(**given, return_lse=True), op.select(**index) + 1

    compiled = torch.compile(model, fullgraph=True, backend=counter, dynamic=True)
    for seq_q, seq_k in ((20, 50), (7, 31), (9, 13)):
        given = inputs(op, seq_q, seq_k)
        for made, expected in zip(compiled(**given), model(**given), strict=True):
            torch.testing.assert_close(made, expected)
    assert counter.frame_count == 1


def test_shapes_are_known_without_computing():
    op = op_of(GROUPS)
    given = {name: tensor.to("meta") for name, tensor in inputs(op).items()}
    out, lse = op(**given, return_lse=True)
    assert (out.shape, out.dtype, lse.shape) == ((2, 4, 20, 24), torch.float32, (2, 4, 20))
    with pytest.raises(CallError, match=r"index_q has shape \(2, 8, 20, 16\)"):
        op(**(given | {"index_q": given["index_q"][..., :16]}))


@pytest.mark.parametrize("name", ["q", "k", "index_weights"])
def test_gradients_are_refused_clearly(name):
    op = op_of(LATENT)
    given = inputs(op)
    given[name].requires_grad_()
    out = op(**given)
    with pytest.raises(NotGeneratedError, match="kind 'attention': the backward pass is not generated yet"):
        out.sum().backward()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"v": torch.zeros(2, 1, 50, 32).bfloat16()}, "has its values in the keys; v is given, None is needed"),
        ({"sink": torch.zeros(4)}, "takes no argument 'sink'"),
        ({"q": torch.zeros(2, 8, 20, 48).bfloat16()}, r"q has 8 heads, shape \(2, 8, 20, 48\); the spec says 4"),
        ({"offsets": torch.zeros(3).int()}, r"offsets has shape \(3,\); \(2,\) is needed"),
        ({"indices": [1, 2]}, "'indices' is list; a torch.Tensor is needed"),
    ],
)
@pytest.mark.parametrize("lengths", [(20, 50), (20, 12)], ids=["selected", "whole"])
def test_what_does_not_fit_is_said_at_every_length(changes, words, lengths):
    op = op_of(LATENT)
    if "v" in changes:
        changes = {"v": changes["v"][:, :, : lengths[1]]}
    with pytest.raises(CallError, match=words):
        op(**(inputs(op, *lengths) | changes))


def test_a_selection_says_what_does_not_fit():
    op = op_of(LATENT)
    index = {name: tensor for name, tensor in inputs(op).items() if name.startswith("index")}
    with pytest.raises(CallError, match=r"'key_range' has shape \(2,\); \(2, 2\) is needed"):
        op.select(**index, key_range=RANGE[0])
    with pytest.raises(CallError, match="'index_q' is NoneType"):
        op.select(**(index | {"index_q": None}))
    empty = index | {"index_k": index["index_k"][:, :0]}
    assert bool((Selector(op.kind)(**empty) == -1).all())

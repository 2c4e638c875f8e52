"""Training calls on CPU tensors: gradients of every kind, and what PyTorch makes of them."""

import pytest
import torch
import torch._dynamo.testing
from torch.utils.checkpoint import checkpoint

import attngen
from attngen import reference
from attngen.errors import NotGeneratedError
from attngen.op.autograd import trained_operator
from attngen.spec import parse_spec
from tests.op.call_examples import KINDS, RANGE, ROW, keywords, tensors
from tests.op.cases import strided

REST = [kind for kind in KINDS if kind not in ("sunk", "biased")]


def learning(kind, **changes):
    """A call's keywords, with gradients for every floating tensor."""
    given = {**tensors(), **keywords(kind), **changes}
    learns = {name for name, x in given.items() if isinstance(x, torch.Tensor) and x.is_floating_point()}
    return {name: x.detach().clone().requires_grad_() if name in learns else x for name, x in given.items()}


def gradients(result, given):
    """Of everything that has one, for a loss that all of the result has a share in."""
    results = result if isinstance(result, tuple) else (result,)
    loss = sum((x * torch.arange(1.0, x.numel() + 1).view_as(x)).sum() / x.numel() for x in results)
    leaves = {name: x for name, x in given.items() if isinstance(x, torch.Tensor) and x.requires_grad}
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def close(made, expected):
    assert made.keys() == expected.keys()
    for name, gradient in made.items():
        torch.testing.assert_close(gradient, expected[name].to(gradient), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_references(attn, kind):
    given = learning(kind, offsets=ROW, key_range=RANGE)
    made = gradients(attn[kind](**given, return_lse=True), given)
    exact = {name: x.detach().double().requires_grad_() if name in made else x for name, x in given.items()}
    out, lse = reference.attention(attn[kind].kind, **exact)
    close(made, gradients((out, lse), exact))
    assert torch.equal(attn[kind](**given), attn[kind](**{name: _detached(x) for name, x in given.items()}))


def _detached(x):
    return x.detach() if isinstance(x, torch.Tensor) else x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optional", [False, True])
def test_opcheck(attn, kind, optional):
    given = learning(kind)
    if optional:
        given["q"] = strided(given["q"].detach()).requires_grad_()
    extras = [given[argument.name] for argument in attn[kind].plan.arguments] + ([ROW, RANGE] if optional else [])
    torch.library.opcheck(attn[kind].trained, (given["q"], given["k"], given["v"], *extras))


@pytest.mark.parametrize("kind", KINDS)
def test_opcheck_of_the_backward_operator(attn, kind):
    given = {name: _detached(x) for name, x in learning(kind).items()}
    op = attn[kind]
    extras = [given[argument.name] for argument in op.plan.arguments]
    q, k, v = (given[name] for name in "qkv")
    out, lse = op.operator(q, k, v, *extras)
    backward = getattr(torch.ops.attngen, op.trained._opname.replace("_trained", "_backward")).default
    wanted = len([name for name in given if name in ("q", "k", "v", *attngen.spec.learned.learned_arguments(op.kind))])
    for dlse in (None, torch.ones_like(lse)):
        arguments = (torch.ones_like(out), dlse, q, k, v, out, lse, *extras, None, None, [True] * wanted)
        torch.library.opcheck(backward, arguments)


@pytest.mark.parametrize("leaf", ["q", "k", "v", "bias"])
def test_only_what_asks_has_a_gradient(attn, leaf):
    whole = learning("biased")
    expected = gradients(attn.biased(**whole), whole)
    given = {name: _detached(x) for name, x in whole.items()}
    given[leaf].requires_grad_()
    close(gradients(attn.biased(**given), given), {leaf: expected[leaf]})
    with torch.no_grad():
        assert not attn.biased(**given).requires_grad


@pytest.mark.parametrize("kind", ["sunk", "biased", *(pytest.param(kind, marks=pytest.mark.slow) for kind in REST)])
def test_compile_in_one_graph(attn, kind):
    torch._dynamo.reset()
    fresh = attngen.load(attn.spec, db=attn.plain._db)  # the first call of its ops is the compiler's
    given = learning(kind, key_range=RANGE)

    def model(q, k, v, **extras):
        out, lse = fresh[kind](q * 2, k, v, return_lse=True, **extras)
        return out + 1, lse

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    close(gradients(compiled(**given), given), gradients(model(**given), given))


def test_compiled_once_for_every_length(attn):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(attn.biased, fullgraph=True, backend=counter, dynamic=True)
    compilations = set()
    for seq_q, seq_k in ((5, 7), (9, 7), (12, 30)):
        given = learning("biased", **tensors(q=(2, 4, seq_q, 16), k=(2, 2, seq_k, 16), v=(2, 2, seq_k, 24)))
        close(gradients(compiled(**given), given), gradients(attn.biased(**given), given))
        compilations.add(counter.frame_count)
    assert len(compilations) == 1


def test_activation_checkpointing(attn):
    given = learning("biased")

    def layer(q, k, v):
        return attn.biased(q.tanh(), k, v, gain=given["gain"], bias=given["bias"]).tanh()

    q, k, v = (given[name] for name in "qkv")
    made = gradients(checkpoint(layer, q, k, v, use_reentrant=False), given)
    close(made, gradients(layer(q, k, v), given))


def test_autocast_takes_tensors_to_the_specs_dtype():
    spec = "heads: 2\nhead_dim: 16\ndtype: bfloat16\nlayers: 1\nsink: learned"
    op = attngen.load(parse_spec(spec)).attention
    q, k, v = (torch.randn(1, 2, 5, 16, requires_grad=True) for _ in range(3))
    sink = torch.randn(2, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = op(q, k.bfloat16(), v, sink=sink)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, op(q.bfloat16(), k.bfloat16(), v.bfloat16(), sink=sink))
    out.float().sum().backward()
    assert q.grad.dtype == sink.grad.dtype == torch.float32


def test_export(attn):
    class Model(torch.nn.Module):
        def forward(self, q, k, v):
            return attn.plain(q, k, v, return_lse=True)

    given = tensors()
    seq_q, seq_k = torch.export.Dim("seq_q", min=2), torch.export.Dim("seq_k", min=2)
    shapes = {"q": {2: seq_q}, "k": {2: seq_k}, "v": {2: seq_k}}
    program = torch.export.export(Model(), tuple(given.values()), dynamic_shapes=shapes)
    other = tensors(q=(2, 4, 9, 16), k=(2, 2, 12, 16), v=(2, 2, 12, 24))
    for made, expected in zip(program.module()(*other.values()), attn.plain(**other, return_lse=True), strict=True):
        torch.testing.assert_close(made, expected)


def test_kinds_without_a_backward_pass_say_so():
    spec = "heads: 1\nhead_dim: 32\ndtype: float8_e4m3\nlayers: 1"
    op = attngen.load(parse_spec(spec)).attention
    made = trained_operator("said", op._operator[1], None)
    scale = torch.ones(1, requires_grad=True)
    q = torch.randn(1, 1, 4, 32).to(torch.float8_e4m3fn)
    out, _ = made(q, q, q, scale, torch.ones(1), torch.ones(1))
    with pytest.raises(NotGeneratedError, match=r"is in float8_e4m3, and has no backward pass; train in bfloat16"):
        out.sum().backward()


def test_what_no_kernel_makes_is_refused_on_a_cpu_too():
    fields = "heads: 2, head_dim: 16, dtype: float32, causal: true, documents: true"
    attn = attngen.load(parse_spec("{name: packed, " + fields + ", score: 's + bias[h, i - j]'}"))
    q, bias = torch.randn(7, 2, 16), torch.zeros(2, 7)
    given = {"q": q, "k": q, "v": q, "cu_seqlens_q": torch.tensor([0, 3, 7], dtype=torch.int32)}
    assert torch.isfinite(attn(**given, bias=bias, layer=0)).all()
    with pytest.raises(NotGeneratedError, match=r"the gradient of 'bias'.* is not generated for packed documents$"):
        attn(**given, bias=bias.requires_grad_(), layer=0)

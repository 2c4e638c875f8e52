"""Calls that do not fit their spec, each with its one line of error."""

import pytest
import torch

import attngen
from attngen.errors import AttngenError, CallError, NotGeneratedError
from attngen.inputs import make_inputs
from attngen.spec import parse_spec
from tests.op.call_examples import RANGE, ROW, keywords, tensors


def call(kind, **changes):
    """Calls ``kind`` with the usual tensors, some of them changed; a change to ... leaves the keyword out."""

    def run(attn):
        given = {**tensors(), **keywords(kind), **changes}
        return getattr(attn, kind)(**{name: value for name, value in given.items() if value is not ...})

    return run


def layer(number):
    return lambda attn: attn(**tensors(), layer=number)


ENDS = {"cu_seqlens_q": torch.tensor([0, 7], dtype=torch.int32)}


def packed(**keywords):
    """A call of the kind with documents."""
    given = {"q": torch.randn(7, 4, 16), "k": torch.randn(7, 2, 16), "v": torch.randn(7, 2, 24)}
    return lambda attn: attn.packed(**given, **keywords)


def twice(attn):
    """A gradient of a gradient."""
    given = tensors()
    given["k"].requires_grad_()
    (first,) = torch.autograd.grad(attn.plain(**given).sum(), given["k"], create_graph=True)
    first.sum().backward()


def forward_mode(attn):
    given = tensors()
    torch.func.jvp(lambda q: attn.plain(**{**given, "q": q}), (given["q"],), (torch.ones_like(given["q"]),))


def functional(transform):
    def run(attn):
        given = tensors()
        transform(lambda k: attn.plain(**{**given, "k": k}).sum(), given["k"])

    return run


def dual(attn):
    given = tensors()
    with torch.autograd.forward_ad.dual_level():
        given["v"] = torch.autograd.forward_ad.make_dual(given["v"], torch.ones_like(given["v"]))
        attn.plain(**given)


FUNCTIONAL = "torch.func's gradients (grad, vjp, jacrev) are not supported; torch.autograd.grad and backward() are"
WRONG = [
    ("q is no tensor", call("plain", q=[[1.0]]), "'q' is list; a torch.Tensor is needed"),
    ("k is no tensor", call("plain", k=None), "'k' is NoneType; a torch.Tensor is needed"),
    ("v is no tensor", call("plain", v=3), "'v' is int; a torch.Tensor is needed"),
    (
        "q has 3 dims",
        call("plain", **tensors(q=(4, 5, 16))),
        "q has shape (4, 5, 16); (batch, heads, sequence, dim) is needed",
    ),
    (
        "k has 5 dims",
        call("plain", **tensors(k=(1, 2, 2, 7, 16))),
        "k has shape (1, 2, 2, 7, 16); (batch, heads, sequence, dim) is needed",
    ),
    (
        "dtype of q",
        call("plain", q=tensors()["q"].half()),
        "q is float16; the spec says float32: convert it, or load the spec with dtype='float16'",
    ),
    (
        "dtype of v",
        call("plain", v=tensors()["v"].double()),
        "v is float64; the spec says float32: convert it",
    ),
    ("device of k", call("plain", k=tensors()["k"].to("meta")), "'k' is on meta and q on cpu; one device is needed"),
    ("device of q", call("plain", q=tensors()["q"].to("meta")), "'k' is on cpu and q on meta; one device is needed"),
    (
        "device of sink",
        call("sunk", sink=torch.zeros(4, device="meta")),
        "'sink' is on meta and q on cpu; one device is needed",
    ),
    ("query heads", call("plain", **tensors(q=(2, 6, 5, 16))), "q has 6 heads, shape (2, 6, 5, 16); the spec says 4"),
    ("kv heads", call("plain", **tensors(k=(2, 4, 7, 16))), "k has 4 heads, shape (2, 4, 7, 16); the spec says 2"),
    ("value heads", call("plain", **tensors(v=(2, 1, 7, 24))), "v has 1 heads, shape (2, 1, 7, 24); the spec says 2"),
    (
        "head_dim of q",
        call("plain", **tensors(q=(2, 4, 5, 24))),
        "q has head_dim 24, shape (2, 4, 5, 24); the spec says 16",
    ),
    (
        "head_dim of v",
        call("plain", **tensors(v=(2, 2, 7, 16))),
        "v has head_dim 16, shape (2, 2, 7, 16); the spec says 24",
    ),
    ("batches", call("plain", **tensors(k=(3, 2, 7, 16))), "q, k and v have batches 2, 3 and 2; they must be equal"),
    ("keys and values", call("plain", **tensors(v=(2, 2, 8, 24))), "k has 7 keys and v has 8; they must be equal"),
    (
        "strides",
        call("plain", q=tensors(q=(2, 4, 16, 5))["q"].transpose(2, 3)),
        "q has stride 5 in its last dimension; 1 is needed: call contiguous()",
    ),
    (
        "unknown keyword",
        call("plain", dropout=0.1),
        "kind 'plain' takes no argument 'dropout'; offsets or key_range would be right",
    ),
    ("misspelt keyword", call("plain", offset=ROW), "kind 'plain' takes no argument 'offset'; did you mean 'offsets'?"),
    (
        "another kind's keyword",
        call("plain", sink=torch.zeros(4)),
        "kind 'plain' takes no argument 'sink'; offsets or key_range would be right",
    ),
    (
        "no sink",
        call("sunk", sink=...),
        "kind 'sunk' needs the argument 'sink': one logit a query head, float32, in natural-log units",
    ),
    (
        "no slopes",
        call("sloped", alibi_slopes=...),
        "kind 'sloped' needs the argument 'alibi_slopes': one slope a query head, float32",
    ),
    (
        "no prefix",
        call("prefixed", prefix=None),
        "kind 'prefixed' needs the argument 'prefix': prefix length of each sequence, int32",
    ),
    (
        "no number",
        call("biased", gain=...),
        "kind 'biased' needs the argument 'gain': number of the spec's expressions",
    ),
    (
        "no named tensor",
        call("biased", bias=...),
        "kind 'biased' needs the argument 'bias': tensor of the spec's expressions",
    ),
    ("shape of sink", call("sunk", sink=torch.zeros(2)), "'sink' has shape (2,); (4,) is needed"),
    (
        "dtype of sink",
        call("sunk", sink=torch.zeros(4, dtype=torch.int32)),
        "'sink' is int32; a floating dtype is needed",
    ),
    ("strides of sink", call("sunk", sink=torch.zeros(8)[::2]), "'sink' is not contiguous; call contiguous()"),
    ("sink is no tensor", call("sunk", sink=[0.0] * 4), "'sink' is list; a torch.Tensor is needed"),
    (
        "shape of prefix",
        call("prefixed", prefix=torch.zeros(4, dtype=torch.int32)),
        "'prefix' has shape (4,); (2,) is needed",
    ),
    (
        "dtype of prefix",
        call("prefixed", prefix=torch.zeros(2, dtype=torch.int64)),
        "'prefix' is int64; int32 is needed",
    ),
    ("prefix is a number", call("prefixed", prefix=3), "'prefix' is int; a torch.Tensor is needed"),
    (
        "rank of a named tensor",
        call("biased", bias=torch.zeros(9)),
        "'bias' has 1 dimensions, shape (9,); the spec indexes 2",
    ),
    (
        "a bias of too few heads",
        call("biased", bias=torch.zeros(3, 9)),
        "'bias' has 3 heads, shape (3, 9); h is one of 4",
    ),
    (
        "empty named tensor",
        call("biased", bias=torch.zeros(4, 0)),
        "'bias' is empty, shape (4, 0); at least one element is needed",
    ),
    ("number is a string", call("biased", gain="2"), "'gain' is str; a Python number is needed"),
    ("number is a flag", call("biased", gain=True), "'gain' is bool; a Python number is needed"),
    ("number is a tensor", call("biased", gain=torch.tensor(2.0)), "'gain' is Tensor; a Python number is needed"),
    (
        "number too large",
        call("biased", gain=2**24 + 1),
        "'gain' is 16777217; whole numbers up to 2**24 are exact in float32 and allowed",
    ),
    (
        "shape of offsets",
        call("plain", offsets=torch.zeros(1, dtype=torch.int32)),
        "'offsets' has shape (1,); (2,) is needed",
    ),
    ("dtype of offsets", call("plain", offsets=torch.zeros(2)), "'offsets' is float32; int32 is needed"),
    ("offsets are a list", call("plain", offsets=[0, 0]), "'offsets' is list; a torch.Tensor is needed"),
    ("shape of key_range", call("plain", key_range=ROW), "'key_range' has shape (2,); (2, 2) is needed"),
    ("dtype of key_range", call("plain", key_range=RANGE.long()), "'key_range' is int64; int32 is needed"),
    (
        "strides of key_range",
        call("plain", key_range=RANGE.T.contiguous().T),
        "'key_range' is not contiguous; call contiguous()",
    ),
    ("layer too large", layer(9), "layer 9; 'model' has layers 0 to 8"),
    ("layer too small", layer(-10), "layer -10; 'model' has layers 0 to 8"),
    ("layer is a name", layer("plain"), "layer is 'plain', a str; a Python int is needed"),
    ("layer is a flag", layer(True), "layer is True, a bool; a Python int is needed"),
    ("layer is a fraction", layer(1.0), "layer is 1.0, a float; a Python int is needed"),
    ("layer is external", layer(1), "layer 1 of 'model' is external: it is not attention and has no op"),
    ("unknown kind", lambda attn: attn["plane"], "'model' has no kind 'plane'; did you mean 'plain'?"),
    (
        "kernel of its own",
        lambda attn: attn.plain.source("backward"),
        "no kernel 'backward'; forward, backward_rows, backward_kv or backward_q would be right",
    ),
    (
        "no lists",
        call("chosen"),
        "kind 'chosen' has no indexer; give 'indices'",
    ),
    (
        "no lists by layer",
        layer(8),
        "kind 'chosen' has no indexer; give 'indices'",
    ),
    ("a batch of documents", call("packed", **ENDS), "q has shape (2, 4, 5, 16); (tokens, heads, dim) is needed"),
    (
        "documents without boundaries",
        packed(),
        "kind 'packed' needs the argument 'cu_seqlens_q': first token of each document in q, and one past the last, "
        "int32",
    ),
    (
        "boundaries that fall",
        packed(cu_seqlens_q=torch.tensor([0, 4, 3, 7], dtype=torch.int32)),
        "'cu_seqlens_q' is [0, 4, 3, 7]; it must begin with 0, never fall, and end at most at the 7 tokens there are",
    ),
    (
        "boundaries past the end",
        packed(cu_seqlens_q=torch.tensor([0, 9], dtype=torch.int32)),
        "'cu_seqlens_q' is [0, 9]; it must begin with 0, never fall, and end at most at the 7 tokens there are",
    ),
    (
        "boundaries of 64 bits",
        packed(cu_seqlens_q=torch.tensor([0, 7])),
        "'cu_seqlens_q' is int64; int32 is needed",
    ),
    (
        "one boundary",
        packed(cu_seqlens_q=torch.tensor([0], dtype=torch.int32)),
        "'cu_seqlens_q' has shape (1,); (documents + 1,), of a document or more, is needed",
    ),
    (
        "other documents in k",
        packed(**ENDS, cu_seqlens_k=torch.tensor([0, 2, 7], dtype=torch.int32)),
        "cu_seqlens_q has 1 documents and cu_seqlens_k 2; they must be equal",
    ),
    (
        "gradients of gradients",
        twice,
        "kind 'plain': gradients of gradients are not generated",
    ),
    (
        "forward-mode derivatives",
        forward_mode,
        "forward-mode derivatives (torch.func.jvp, forward_ad) are not generated",
    ),
    ("torch.func.grad", functional(lambda f, k: torch.func.grad(f)(k)), FUNCTIONAL),
    ("torch.func.vjp", functional(torch.func.vjp), FUNCTIONAL),
    ("torch.func.jacrev", functional(lambda f, k: torch.func.jacrev(f)(k)), FUNCTIONAL),
    ("a dual tensor", dual, "forward-mode derivatives (torch.func.jvp, forward_ad) are not generated"),
]


@pytest.mark.parametrize(("run", "message"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_wrong_calls(attn, run, message):
    with pytest.raises(AttngenError) as error:
        run(attn)
    assert str(error.value) == message
    assert "\n" not in message


def test_call_errors_are_value_errors(attn):
    with pytest.raises(ValueError):
        attn.plain(**tensors(q=(2, 4, 5, 24)))
    assert issubclass(CallError, AttngenError)


def test_an_unknown_kind_is_an_attribute_error_too(attn):
    with pytest.raises(AttributeError, match=r"^'model' has no kind 'plane'; did you mean 'plain'\?$"):
        _ = attn.plane
    assert not hasattr(attn, "plane")


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((2, 9), r"'doc' has 2 sequences, shape \(2, 9\); b is one of 3"),
        ((3, 8), r"'doc' has 8 positions, shape \(3, 8\); i is one of 9"),
        ((1, 9), None),
        ((3, 1), None),
        ((4, 11), None),
    ],
    ids=str,
)
def test_a_tensor_that_is_read_at_a_symbol_has_one_element_or_all(shape, reason):
    attn = attngen.load(
        parse_spec("{heads: 2, head_dim: 16, layers: 1, dtype: float32, mask: 'doc[b, i] == doc[b, j]'}")
    )
    q, k = torch.randn(3, 2, 5, 16), torch.randn(3, 2, 9, 16)
    given = {"doc": torch.zeros(shape, dtype=torch.int32)}
    if reason is None:
        torch.testing.assert_close(
            attn(q, k, k, layer=0, **given), torch.nn.functional.scaled_dot_product_attention(q, k, k)
        )
        return
    with pytest.raises(CallError, match=reason):
        attn(q, k, k, layer=0, **given)


@pytest.mark.parametrize("score", ["t[h] + t[b]", "t[h] + t[j]", "t[b] + t[j]", "t[j] + t[h] + t[b]"])
@pytest.mark.parametrize(("batch", "heads", "keys"), [(4, 2, 8), (1, 12, 8), (12, 2, 8), (2, 2, 20)])
def test_random_inputs_are_enough_for_all_that_read_them(score, batch, heads, keys):
    """One dimension is read at several symbols."""
    spec = parse_spec(f"{{heads: {heads}, head_dim: 16, layers: 1, dtype: float32, score: 's + {score}'}}")
    inputs = make_inputs(spec.kinds[0], batch, 5, keys, device="cpu")
    assert attngen.load(spec)(layer=0, **inputs).shape == (batch, heads, 5, 16)


@pytest.mark.parametrize(
    "score", ["s + t[floor(s) + 4] + t[j]", "s + t[floor(s) + 4]", "s * t[min(max(floor(s * 2), 0), 8)]"]
)
def test_tensors_at_a_place_that_depends_on_the_score_have_no_gradient(score):
    attn = attngen.load(parse_spec(f"{{heads: 2, head_dim: 16, layers: 1, dtype: float32, score: '{score}'}}"))
    q, t = (torch.randn(*shape, requires_grad=True) for shape in ((1, 2, 9, 16), (9,)))
    message = r"the gradient of 't', whose place depends on the score, is not generated; give t.detach\(\)"
    with pytest.raises(NotGeneratedError, match=message):
        attn.attention(q, q, q, t=t)
    with pytest.raises(RuntimeError, match=message):
        torch.compile(attn.attention, backend="aot_eager")(q, q, q, t=t)
    attn.attention(q, q, q, t=t.detach()).sum().backward()
    assert q.grad is not None
    with torch.no_grad():
        attn.attention(q, q, q, t=t)

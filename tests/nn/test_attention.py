"""A layer's attention as a module: what it computes, learns, keeps and copies."""

import copy
import io

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import attngen
from attngen.nn import Attention
from attngen.spec import dump_spec, parse_spec
from tests.op.call_examples import KINDS, RANGE, ROW, SPEC, keywords, tensors

MODEL = parse_spec(SPEC)
LAYERS = {name: layer for layer, name in enumerate(MODEL.layer_kinds)}
DIM = 24

BRANCHED = """
name: branched
heads: {query: 4, kv: 2}
head_dim: 16
dtype: float32
layers: 2
causal: true
kinds:
  gated:
    branches:
      near: {window: {total: 4}, sink: learned}
      far: {}
  listed: {select: {top_k: 4}, sink: learned}
pattern: [gated, listed]
"""


def halves(q, k):
    """Rotary embedding of positions 0, 1, and so on, in GPT-NeoX's order."""
    angles = torch.arange(q.shape[1])[:, None, None] * 100.0 ** -torch.linspace(0, 1, q.shape[-1] // 2)
    turned = []
    for x in (q, k):
        first, second = x.chunk(2, -1)
        cos, sin = angles.cos(), angles.sin()
        turned.append(torch.cat([first * cos - second * sin, second * cos + first * sin], -1))
    return tuple(turned)


def seeded(layer, spec=MODEL, **options):
    torch.manual_seed(0)
    return Attention(spec, layer=layer, **options)


def sequence(batch=2, length=7):
    return torch.randn(batch, length, DIM, generator=torch.Generator().manual_seed(1))


def by_sequence():
    """q, k and v as a module takes them."""
    return [x.transpose(1, 2) for x in tensors().values()]


@pytest.mark.parametrize("kind", KINDS)
def test_without_projections_it_is_the_op_of_the_layer(kind):
    given = {**keywords(kind), "offsets": ROW, "key_range": RANGE}
    module = Attention(MODEL, layer=LAYERS[kind], learned={"bias": (4, 9)} if kind == "biased" else None)
    owned = {name: given[name] for name in module.state_dict()}
    module.load_state_dict(owned)
    asked = {name: value for name, value in given.items() if name not in owned}
    out, lse = module(*by_sequence(), **asked, return_lse=True)
    expected_out, expected_lse = attngen.load(MODEL)[kind](**tensors(), **given, return_lse=True)
    assert torch.equal(out.transpose(1, 2), expected_out)
    assert torch.equal(lse, expected_lse)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rotary", [None, halves])
def test_with_projections_it_is_sdpa_between_them(bias, rotary):
    module = seeded(0, dim=DIM, bias=bias, rotary=rotary)
    x = sequence().requires_grad_()
    q = torch.nn.functional.linear(x, module.q_proj.weight, module.q_proj.bias).view(2, 7, 4, 16)
    k = torch.nn.functional.linear(x, module.k_proj.weight, module.k_proj.bias).view(2, 7, 2, 16)
    v = torch.nn.functional.linear(x, module.v_proj.weight, module.v_proj.bias).view(2, 7, 2, 24)
    q, k = (q, k) if rotary is None else rotary(q, k)
    out = scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True, enable_gqa=True)
    expected = module.o_proj(out.transpose(1, 2).reshape(2, 7, -1))
    made = module(x)
    torch.testing.assert_close(made, expected)
    leaves = [x, *module.parameters()]
    assert len(leaves) == 1 + 4 * (1 + bias)
    dout = torch.randn_like(made)
    for found, right in zip(
        torch.autograd.grad(made, leaves, dout), torch.autograd.grad(expected, leaves, dout), strict=True
    ):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)


def test_a_file_is_taken_as_a_spec(tmp_path):
    file = tmp_path / "model.yaml"
    file.write_text(dump_spec(MODEL))
    module = attngen.nn.Attention(file, layer=-9)
    assert module.kind == MODEL.kind("plain")
    assert repr(module) == "Attention(model, layer=-9, kind=plain, heads=4, kv=2)"


def test_a_sink_is_learned_and_slopes_are_the_papers_until_they_are_asked_for():
    assert torch.equal(Attention(MODEL, layer=LAYERS["sunk"]).sink, torch.nn.Parameter(torch.zeros(4)))
    fixed, learned = (
        Attention(MODEL, layer=LAYERS["sloped"], learned=asked) for asked in (None, {"alibi_slopes": [4]})
    )
    assert not list(fixed.parameters())
    assert fixed.alibi_slopes.tolist() == [2**-2, 2**-4, 2**-6, 2**-8]
    assert torch.equal(fixed.state_dict()["alibi_slopes"], learned.state_dict()["alibi_slopes"])
    for module, name in ((Attention(MODEL, layer=LAYERS["sunk"]), "sink"), (learned, "alibi_slopes")):
        module(*by_sequence()).square().sum().backward()
        assert getattr(module, name).grad.abs().min() > 0


def test_slopes_of_heads_that_are_no_power_of_two():
    spec = parse_spec("heads: 12\nhead_dim: 16\nlayers: 1\nalibi: true")
    expected = [2.0**-n for n in range(1, 9)] + [2.0**-n for n in (0.5, 1.5, 2.5, 3.5)]
    assert Attention(spec, layer=0).alibi_slopes.tolist() == pytest.approx(expected)


def test_branches_and_lists_own_their_sinks():
    gated, listed = (Attention(parse_spec(BRANCHED), layer=layer, dim=DIM) for layer in (0, 1))
    assert "near_sink" in gated.state_dict() and "sink" in listed.state_dict()
    with torch.no_grad():
        gates, indices = torch.rand(2, 4, 7, 2), torch.arange(4, dtype=torch.int32).expand(2, 7, 4)
        assert gated(sequence(), gates=gates).shape == listed(sequence(), indices=indices).shape == (2, 7, DIM)
        full = listed(sequence(), indices=indices)
        listed.sink.fill_(50.0)  # takes all the weight
        assert full.abs().max() > 1e-3 > listed(sequence(), indices=indices).abs().max()


@pytest.mark.parametrize("computes", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kernels_compute_in_the_specs_dtype_and_results_have_that_of_the_values(computes, dtype):
    spec = MODEL.with_dtype(computes)
    q, k, v = (x.to(dtype) for x in by_sequence())
    out = Attention(spec, layer=0)(q.float(), k, v)
    exact = attngen.load(spec).plain(*(x.to(getattr(torch, computes)).transpose(1, 2) for x in (q, k, v)))
    assert out.dtype == dtype
    assert torch.equal(out, exact.transpose(1, 2).to(dtype))
    assert seeded(0, spec, dim=DIM, dtype=dtype)(sequence().to(dtype)).dtype == dtype


def test_autocast_trains_float32_weights():
    module = seeded(LAYERS["sunk"], MODEL.with_dtype("bfloat16"), dim=DIM, rotary=halves)
    exact = seeded(LAYERS["sunk"], dim=DIM, rotary=halves)(sequence())
    with torch.autocast("cpu", torch.bfloat16):
        out = module(sequence())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), exact, rtol=2e-2, atol=2e-2)
    out.sum().backward()
    assert {x.grad.dtype for x in module.parameters()} == {torch.float32}


@pytest.mark.parametrize("dim", [None, DIM])
def test_compiles_in_one_graph(dim):
    torch._dynamo.reset()
    module = seeded(LAYERS["biased"], dim=dim, learned={"bias": (4, 9)})
    given = [sequence()] if dim else by_sequence()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for run in (compiled, module):
        module.zero_grad()
        run(*given, gain=0.5).square().sum().backward()
        grads = [x.grad.clone() for x in module.parameters()]
        if run is compiled:
            first = grads
    for found, expected in zip(first, grads, strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected)


def test_compiles_under_autocast():
    torch._dynamo.reset()
    module = seeded(0, MODEL.with_dtype("bfloat16"), dim=DIM)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(sequence()), module(sequence()))


def copied(module):
    return copy.deepcopy(module)


def pickled(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("again", [copied, pickled])
def test_copies_compute_the_same_and_learn_apart(again):
    module = seeded(LAYERS["sunk"], dim=DIM, rotary=halves)
    out = module(sequence())
    other = again(module)
    assert torch.equal(other(sequence()), out)
    other(sequence()).sum().backward()
    assert module.sink.grad is None and other.sink.grad is not None
    assert again(module.eval()).training is False


def test_state_goes_to_a_module_made_without_memory():
    module = seeded(LAYERS["sloped"], dim=DIM)
    with torch.device("meta"):
        empty = Attention(MODEL, layer=LAYERS["sloped"], dim=DIM)
    assert {x.device.type for x in empty.state_dict().values()} == {"meta"}
    made = empty(sequence().to("meta"))
    assert made.device.type == "meta" and made.shape == (2, 7, DIM)
    filled = empty.to_empty(device="cpu")
    filled.reset_parameters()
    assert torch.equal(filled.alibi_slopes, module.alibi_slopes)
    filled.load_state_dict(module.state_dict())
    assert torch.equal(filled(sequence()), module(sequence()))


@pytest.mark.gpu
@pytest.mark.parametrize("computes", ["bfloat16", "float16"])
@pytest.mark.parametrize("compiles", [False, True])
def test_on_the_gpu_it_trains_as_on_the_cpu(computes, compiles):
    spec = parse_spec(dump_spec(MODEL).replace("qk: 16, v: 24", "qk: 64, v: 64")).with_dtype(computes)
    module = seeded(LAYERS["sunk"], spec, dim=DIM, rotary=None)
    x = torch.randn(2, 300, DIM)
    module(x).square().sum().backward()
    there = copy.deepcopy(module).cuda()
    there.zero_grad()
    run = torch.compile(there, fullgraph=True) if compiles else there
    run(x.cuda()).square().sum().backward()
    for found, expected in zip(there.parameters(), module.parameters(), strict=True):
        difference = (found.grad.cpu() - expected.grad).norm() / expected.grad.norm()
        assert difference < 2e-2


PACKED = """
name: packed
heads: {query: 4, kv: 2}
head_dim: 16
dtype: float32
layers: 1
causal: true
sink: learned
documents: true
"""


def test_packed_documents_are_as_if_alone():
    """Rows of tokens, each document with positions of its own; gradients reach projections and the sink."""
    packed = seeded(0, parse_spec(PACKED), dim=DIM)
    alone = seeded(0, parse_spec(PACKED.replace("documents: true", "")), dim=DIM)
    alone.load_state_dict(packed.state_dict())
    x, ends = sequence(1, 9)[0], torch.tensor([0, 4, 9], dtype=torch.int32)
    y = packed(x, cu_seqlens_q=ends)
    parts = torch.cat([alone(part[None])[0] for part in x.split([4, 5])])
    assert torch.allclose(y, parts, atol=1e-6)
    for result, module in ((y, packed), (parts, alone)):
        result.square().sum().backward()
        assert module.sink.grad.abs().max() > 0
    for name, parameter in packed.named_parameters():
        assert torch.allclose(parameter.grad, alone.get_parameter(name).grad, atol=1e-5), name


def test_packed_documents_without_projections():
    module = Attention(parse_spec(PACKED), layer=0)
    q, k, v = (torch.randn(9, heads, 16) for heads in (4, 2, 2))
    ends = torch.tensor([0, 4, 9], dtype=torch.int32)
    out, lse = module(q, k, v, cu_seqlens_q=ends, return_lse=True)
    expected, expected_lse = attngen.load(parse_spec(PACKED))(
        q, k, v, layer=0, cu_seqlens_q=ends, sink=module.sink, return_lse=True
    )
    assert out.shape == (9, 4, 16) and lse.shape == (4, 9)
    assert torch.equal(out, expected) and torch.equal(lse, expected_lse)

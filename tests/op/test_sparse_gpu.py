"""DeepSeek's sparse attention on a GPU: indexer, selection and attention over lists as one op."""

import pytest
import torch

import attngen
from attngen import NotGeneratedError, reference
from attngen.inputs_sparse import make_index, make_indices
from attngen.op import Selector
from attngen.op.kernels import launcher_of
from attngen.plan.indexer import plan_indexer
from attngen.spec import parse_spec
from attngen.tuner.checks import TOLERANCE

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

SPECS = {
    "as DeepSeek-V3.2": "{name: s, heads: 128, latent: {rank: 512, rope: 64}, causal: true, select: {top_k: 512, "
    "indexer: {heads: 64, head_dim: 128, scale: {block: 128, format: ue8m0}}}}",
    "few heads, rotated, forced keys": "{name: s, heads: 16, latent: {rank: 512, rope: 64}, causal: true, select: "
    "{top_k: 300, first: 4, last: 64, indexer: {heads: 32, head_dim: 128, hadamard: true}}}",
    "groups, a window, a sink": "{name: s, heads: {query: 16, kv: 2}, head_dim: 128, causal: true, sink: learned, "
    "window: {total: 1500}, select: {top_k: 200, indexer: {heads: 16, head_dim: 64, dtype: bfloat16}}}",
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("sizes", [(2, 333, 2111), (1, 1, 4000), (1, 777, 777)], ids=str)
def test_the_op(spec, sizes):
    kind = parse_spec(spec).kinds[0]
    op = attngen.load(parse_spec(spec)).attention
    batch, seq_q, seq_k = sizes
    inputs = make_indices(kind, *sizes, device="cuda")
    del inputs["indices"]
    index = make_index(kind, *sizes, device="cuda")
    indices = op.select(**index)
    out, lse = op(**inputs, **index, return_lse=True)
    selector = Selector(kind, workspace_bytes=4 * 40 * 2304)
    assert torch.equal(selector(**index), indices)  # in chunks of a few queries

    # Exact for the kernel's own scores.
    first, end = reference.key_bounds(kind, seq_q, seq_k, batch, device="cuda")
    quantised = selector.quantised(**index)
    plan = plan_indexer(kind)
    config = selector.config("indexer", *sizes).config
    scale = {} if quantised.k_scale is None else {"k_scale": quantised.k_scale}
    scores = launcher_of(plan, config)(quantised.q, quantised.k, quantised.weights, first, end, **scale)
    select = kind.select
    expected = reference.select_keys(
        scores.flatten(0, 1), first.flatten(), end.flatten(), select.top_k, first=select.first, last=select.last
    )
    assert torch.equal(indices.flatten(0, 1), expected)

    exact, exact_lse = reference.attention(kind, **inputs, indices=indices)
    assert float((out.double() - exact).norm() / exact.norm()) <= TOLERANCE[kind.dtype]
    assert float((lse.double() - exact_lse).abs().max()) <= 1e-3


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_short_sequences_are_attended_to_whole(spec):
    spec = parse_spec(spec)
    kind = spec.kinds[0]
    op = attngen.load(spec).attention
    for seq_q, seq_k in ((150, kind.select.top_k), (1, 77)):
        inputs = make_indices(kind, 2, seq_q, seq_k, device="cuda")
        del inputs["indices"]
        inputs["key_range"] = torch.tensor([[0, seq_k - 9], [3, seq_k]], dtype=torch.int32, device="cuda")
        out, lse = op(**inputs, return_lse=True)
        exact, exact_lse = reference.attention(kind, **inputs)
        assert float((out.double() - exact).norm() / exact.norm()) <= TOLERANCE[kind.dtype]
        unseen = torch.isneginf(exact_lse)
        assert torch.equal(torch.isneginf(lse), unseen)
        assert float((lse.double() - exact_lse).masked_fill(unseen, 0.0).abs().max()) <= 1e-3


def test_compiled_in_one_graph():
    torch._dynamo.reset()
    spec = parse_spec(SPECS["as DeepSeek-V3.2"])
    kind, op = spec.kinds[0], attngen.load(spec).attention
    compiled = torch.compile(op, fullgraph=True, dynamic=True)
    for seq_q, seq_k in ((200, 1500), (300, 400)):
        inputs = make_indices(kind, 1, seq_q, seq_k, device="cuda")
        del inputs["indices"]
        inputs |= make_index(kind, 1, seq_q, seq_k, device="cuda")
        assert torch.equal(compiled(**inputs), op(**inputs))


@pytest.mark.parametrize("kernel", ["indexer", "select", "gathered"])
def test_every_config_of_a_small_space_is_right(kernel):
    from attngen.plan import plan_gathered, plan_select
    from attngen.plan.space import enumerate_configs
    from attngen.problem import Problem
    from attngen.target import detect
    from attngen.tuner.kernel import checks_of

    kind = parse_spec(SPECS["as DeepSeek-V3.2"]).kinds[0]
    plan = {"indexer": plan_indexer, "select": plan_select, "gathered": plan_gathered}[kernel](kind)
    problem = Problem(kernel, kind.digest(), 1, 512, 4096)
    checks = checks_of(plan, problem)
    configs = enumerate_configs(plan, detect(), problem)
    for config in configs[:: len(configs) // 4 or 1]:
        assert checks.find_fault(launcher_of(plan, config)) is None, config


def test_gradients_are_refused_clearly():
    spec = parse_spec(SPECS["as DeepSeek-V3.2"])
    inputs = make_indices(spec.kinds[0], 1, 16, 600, device="cuda")
    inputs["q"].requires_grad_()
    out = attngen.load(spec).attention(**inputs)
    with pytest.raises(NotGeneratedError, match="backward pass is not generated yet"):
        out.sum().backward()

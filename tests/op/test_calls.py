"""Calls of the op on CPU tensors: what they return, and what PyTorch makes of them."""

import copy
import pickle

import pytest
import torch
import torch._dynamo.testing

import attngen
from attngen.config import Config
from attngen.database import Trial, open_database
from attngen.errors import CallError
from attngen.op import choose, register
from attngen.op.launch import signature_of
from attngen.plan import plan_forward
from attngen.problem import Problem
from attngen.spec import parse_spec
from attngen.spec.model import HeadDim, Heads, Kind
from attngen.target import get_target
from tests.op.call_examples import BATCH, KINDS, RANGE, ROW, SEQ_Q, keywords, tensors
from tests.op.cases import strided


def test_kinds_are_found_by_name_layer_and_item(attn):
    assert attn["global"] is attn.kinds["global"] is attn.op(2)
    assert attn.op(-9) is attn.plain
    assert attn.layers == attn.spec.layer_kinds
    assert "plain" in dir(attn)


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda attn: pickle.loads(pickle.dumps(attn))], ids=["copy", "pickle"]
)
def test_copies_compute_the_same(attn, again):
    made = again(attn)
    assert made.spec == attn.spec
    assert torch.equal(made(**tensors(), layer=0), attn(**tensors(), layer=0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_is_the_reference(attn, kind):
    given = {**tensors(), **keywords(kind), "offsets": ROW, "key_range": RANGE}
    out, lse = attn[kind](**given, return_lse=True)
    exact_out, exact_lse = attngen.reference.attention(attn[kind].kind, **given)
    torch.testing.assert_close(out, exact_out.float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(lse, exact_lse.float(), rtol=1e-6, atol=1e-6)
    assert torch.equal(out, attn(**given, layer=attn.layers.index(kind)))


def test_out_is_laid_out_like_q(attn):
    given = tensors()
    assert attn.plain(**given).is_contiguous()
    given["q"] = strided(given["q"])
    out = attn.plain(**given)
    assert out.transpose(1, 2).is_contiguous()
    torch.testing.assert_close(out, attn.plain(**tensors()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optional", [False, True])
def test_opcheck(attn, kind, optional):
    extras = [keywords(kind)[argument.name] for argument in attn[kind].plan.arguments]
    extras += [ROW, RANGE] if optional else []
    given = tensors()
    if optional:
        given["q"] = strided(given["q"])
    torch.library.opcheck(attn[kind].operator, (*given.values(), *extras))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile_in_one_graph(attn, kind, backend):
    torch._dynamo.reset()
    fresh = attngen.load(attn.spec, db=attn.plain._db)  # the first call of its ops is the compiler's

    def model(q, k, v, **extras):
        out, lse = fresh[kind](q * 2, k, v, return_lse=True, **extras)
        return out + 1, lse

    given = {**tensors(), **keywords(kind), "key_range": RANGE}
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for made, expected in zip(compiled(**given), model(**given), strict=True):
        torch.testing.assert_close(made, expected)


def test_compiled_once_for_every_length(attn):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(attn.biased, fullgraph=True, backend=counter, dynamic=True)
    for seq_q, seq_k in ((5, 7), (9, 7), (12, 30)):
        shapes = {"q": (BATCH, 4, seq_q, 16), "k": (BATCH, 2, seq_k, 16), "v": (BATCH, 2, seq_k, 24)}
        given = {**tensors(**shapes), **keywords("biased")}
        torch.testing.assert_close(compiled(**given), attn.biased(**given))
    assert counter.frame_count == 1


def test_shapes_are_known_without_computing(attn):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        given = {name: mode.from_tensor(tensor) for name, tensor in tensors().items()}
        out, lse = attn.plain(**given, return_lse=True)
    assert (out.shape, out.dtype) == ((BATCH, 4, SEQ_Q, 24), torch.float32)
    assert (lse.shape, lse.dtype) == ((BATCH, 4, SEQ_Q), torch.float32)
    out = attn.plain(**{name: tensor.to("meta") for name, tensor in tensors().items()})
    assert out.device.type == "meta"


def test_arguments_may_be_named_like_words_of_a_schema(tmp_path):
    names = ("Tensor", "float", "int", "bool", "str", "Any", "Device", "none")
    score = "s * " + " * ".join(names[:4]) + " + " + " + ".join(f"{name}[i]" for name in names[4:])
    attn = attngen.load(parse_spec(f"heads: 1\nhead_dim: 16\ndtype: float32\nlayers: 1\nscore: '{score}'"))
    given = dict.fromkeys(names[:4], 1.0) | {name: torch.zeros(4) for name in names[4:]}
    q = torch.randn(1, 1, 4, 16)
    torch.testing.assert_close(
        attn.attention(q, q, q, **given), torch.nn.functional.scaled_dot_product_attention(q, q, q)
    )


@pytest.mark.parametrize("name", ["007", "1.5", "a-b_c.9", "null", "x"])
def test_specs_of_any_name_make_ops(name):
    attn = attngen.load(parse_spec(f"name: '{name}'\nheads: 1\nhead_dim: 16\ndtype: float32\nlayers: 1"))
    q = torch.randn(1, 1, 4, 16)
    torch.testing.assert_close(attn(q, q, q, layer=0), torch.nn.functional.scaled_dot_product_attention(q, q, q))


def test_the_source_of_an_op_is_its_kernel(attn):
    text = attn.biased.source("forward", seq=512)
    compile(text, "kernel", "exec")
    assert "def attention_forward(" in text
    assert attn.biased.kind.score.text in text


@pytest.mark.parametrize("kernel", ["backward_rows", "backward_kv", "backward_q", "backward_elements"])
def test_the_source_of_a_backward_pass_is_its_kernels(attn, kernel):
    text = attn.biased.source(kernel, seq=512)
    compile(text, "kernel", "exec")
    assert f"def attention_{kernel}(" in text
    given = tensors()
    chosen = attn.biased.config(given["q"], given["k"], given["v"], kernel=kernel)
    assert chosen.config["schedule"] == "portable" and chosen.provenance.startswith("default for h100")


def test_configs_of_the_backward_pass_are_those_that_were_tuned(attn, tmp_path):
    db = open_database(str(tmp_path / "tunings.sqlite"))
    op, given = attngen.load(attn.spec, db=db).sunk, tensors()
    config = Config(schedule="portable", BLOCK_M=16, BLOCK_N=32, num_warps=4, num_stages=1)
    problem = Problem("backward_q", op.kind.digest(), 2, 5, 7)
    db.record(Trial(problem, target="h100", config=config, status="ok", median_ms=0.1))
    assert op.config(given["q"], given["k"], given["v"], kernel="backward_q").config == config


def test_configs_are_looked_up_once_a_bucket(attn, monkeypatch):
    looked_up = []
    look_up = choose.Chooser.look_up
    monkeypatch.setattr(
        choose.Chooser,
        "look_up",
        lambda self, problem, *rest: looked_up.append(problem) or look_up(self, problem, *rest),
    )
    op = attngen.load(attn.spec, db=attn["global"]._db).plain

    def chosen(seq):
        return op.config(torch.zeros(1, 4, seq, 16), torch.zeros(1, 2, seq, 16), torch.zeros(1, 2, seq, 24))

    first = chosen(900)
    assert chosen(1000) is first
    assert chosen(1024) is first
    assert len(looked_up) == 1
    chosen(1025)
    assert [problem.seq_q for problem in looked_up] == [1024, 2048]
    assert "default" in first.provenance


def test_a_spec_loaded_again_uses_its_own_lookups(attn):
    """Operators live as long as the process; what was tuned in between must be seen."""
    again = attngen.load(attn.spec, db=attn.plain._db)
    assert again.plain.operator is attn.plain.operator
    implementation = next(made for call, made in register._registered.values() if call is again.plain.operator)
    assert implementation.chooser is again.plain.chooser


def test_a_prepared_launch_depends_on_the_alignment_of_each_tensor():
    """What was compiled for an unaligned q and an aligned k must not run where it is the other way round."""
    base = torch.empty(65)
    aligned, unaligned = base[:64], base[1:]
    signatures = {signature_of(pair) for pair in ((aligned, unaligned), (unaligned, aligned), (aligned, aligned))}
    assert len(signatures) == 3
    assert signature_of((aligned, unaligned)) == signature_of((torch.empty(64), unaligned))


def test_configs_for_hopper_need_every_tensor_described(monkeypatch, tmp_path):
    """Where q cannot be described nothing of Gluon runs; where k or v cannot, no descriptor at all."""
    monkeypatch.setattr(choose, "target_here", lambda: get_target("h200"))
    plan = plan_forward(Kind("kind", Heads(4, 2), HeadDim(64, 64), causal=True))
    chooser = choose.Chooser(plan, str(tmp_path / "tunings.sqlite"))
    heads = {"q": 4, "k": 2, "v": 2}
    given = {name: torch.zeros(1, count, 8192, 64, dtype=torch.bfloat16) for name, count in heads.items()}

    def config(**changes):
        return chooser(**{**given, **changes}).config

    def shifted(name):
        """A view that begins 2 bytes past a multiple of 16, and one whose rows are not a multiple of 16 bytes apart."""
        shape = given[name].shape
        flat = torch.zeros(given[name].numel() + 1, dtype=torch.bfloat16)
        return flat[1:].view(shape), torch.zeros(*shape[:3], 65, dtype=torch.bfloat16)[..., :64]

    assert config()["schedule"] == "hopper"
    for q in shifted("q"):
        assert (config(q=q)["schedule"], config(q=q)["loads"]) == ("portable", "descriptor")
        assert config(q=q, k=shifted("k")[0])["loads"] == "pointer"
    for name in "kv":
        for tensor in shifted(name):
            found = config(**{name: tensor})
            assert (found["schedule"], found["loads"]) == ("portable", "pointer")
    assert config()["schedule"] == "hopper"


WRONG_LOADS = {
    "a dtype of PyTorch": (
        {"dtype": torch.float16},
        r"^dtype is torch.float16; float16, bfloat16, float32 or float8_e4m3 would be right$",
    ),
    "a dtype of no kernel": ({"dtype": "float64"}, r"^dtype is 'float64'; float16, .* would be right$"),
    "a dict": ({"spec": {"heads": 4}}, r"^a spec is the path of a YAML file, or a Spec; this is a dict$"),
}


@pytest.mark.parametrize("name", WRONG_LOADS)
def test_wrong_loads(name):
    given, message = WRONG_LOADS[name]
    with pytest.raises(CallError, match=message):
        attngen.load(**{"spec": parse_spec("{heads: 4, head_dim: 64}"), **given})

"""What a module does not take: one clear error each, when it is made if that can be known."""

import pytest
import torch

from attngen.errors import CallError, NotGeneratedError
from attngen.nn import Attention
from attngen.spec import parse_spec
from tests.nn.test_attention import BRANCHED, DIM, LAYERS, MODEL, by_sequence, seeded, sequence
from tests.op.call_examples import keywords

LATENT = "heads: 4\nlatent: {rank: 32, rope: 16}\nlayers: 1\nselect: {top_k: 4}"
FLOAT8 = "heads: 4\nhead_dim: 32\ndtype: float8_e4m3\nlayers: 1"
NAMED = "heads: 4\nhead_dim: 32\nlayers: 1\nscore: s + training[h]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 9}, "layer 9; 'model' has layers 0 to 8"),
        ({"layer": True}, "layer is True, a bool; a Python int is needed"),
        ({"layer": 1}, "layer 1 of 'model' is external: it is not attention and has no op"),
        ({"layer": 0, "dim": 0}, "dim is 0; the width of x, a positive whole number, is needed"),
        ({"layer": 0, "bias": True}, "bias and rotary are of projections, which a module without 'dim' does not have"),
        (
            {"layer": 0, "learned": {"bias": (4, 9)}},
            "kind 'plain' reads no 'bias' that is learned by asking; it has no",
        ),
        ({"layer": 6, "learned": {"bia": (4, 9)}}, "kind 'biased' reads no 'bia' that .*; did you mean 'bias'?"),
        ({"layer": 3, "learned": {"sink": (4,)}}, "kind 'sunk' reads no 'sink' that is learned by asking"),
        ({"layer": 6, "learned": ["bias"]}, "learned is a list; names with their shapes are needed"),
        ({"layer": 6, "learned": {"bias": 9}}, "'bias' is asked for with 9; its shape, whole numbers, is needed"),
        ({"layer": 6, "learned": {"bias": (4, 8.0)}}, r"'bias' is asked for with \(4, 8.0\); its shape, whole numbers"),
        ({"layer": 6, "learned": {"bias": (9,)}}, r"'bias' is asked for with shape \(9,\); a size for each of 2 ind"),
        ({"layer": 6, "learned": {"bias": (4, 0)}}, r"'bias' is asked for with shape \(4, 0\); a size for each of 2"),
        ({"layer": 4, "learned": {"alibi_slopes": (3,)}}, r"asked for with shape \(3,\); \(4,\) is needed"),
        (
            {"layer": 0, "spec": LATENT, "dim": 8},
            "kind 'attention' attends to a latent, which plain projections do not",
        ),
        ({"layer": 0, "spec": FLOAT8, "dim": 8}, "kind 'attention' takes float8_e4m3 and its scales, which plain proj"),
        (
            {"layer": 0, "spec": NAMED, "learned": {"training": (4,)}},
            "'training' cannot be a parameter, as a module has",
        ),
    ],
)
def test_wrong_modules(options, message):
    spec = parse_spec(options["spec"]) if "spec" in options else MODEL
    with pytest.raises(CallError, match=message):
        Attention(**{**options, "spec": spec})


def test_wrong_calls_with_packed_documents():
    spec = parse_spec("heads: 4\nhead_dim: 16\nlayers: 1\ndocuments: true")
    ends = torch.tensor([0, 7], dtype=torch.int32)
    with pytest.raises(CallError, match=r"x has shape \(1, 7, 24\); \(tokens, 24\) is needed"):
        Attention(spec, layer=0, dim=DIM)(torch.ones(1, 7, DIM), cu_seqlens_q=ends)
    with pytest.raises(CallError, match=r"q has shape \(1, 7, 4, 16\); \(tokens, 4, 16\) is needed"):
        Attention(spec, layer=0)(*[torch.ones(1, 7, 4, 16)] * 3, cu_seqlens_q=ends)
    with pytest.raises(CallError, match="needs the argument 'cu_seqlens_q'"):
        Attention(spec, layer=0, dim=DIM)(torch.ones(7, DIM))


def test_a_kind_without_kernels_is_said_when_the_module_is_made():
    spec = parse_spec("heads: 4\nhead_dim: 32\nlayers: 1\ndocuments: true\nblocks: {size: 64}")
    with pytest.raises(NotGeneratedError, match="documents"):
        Attention(spec, layer=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((torch.ones(2, 7, 8),), r"x has shape \(2, 7, 8\); \(batch, sequence, 24\) is needed"),
        ((torch.ones(7, DIM),), r"x has shape \(7, 24\); \(batch, sequence, 24\) is needed"),
        (([[1.0]],), "'x' is list; a torch.Tensor is needed"),
        ((sequence(), sequence(), sequence()), "a module with 'dim' makes k and v of x; leave 'dim' out to give"),
    ],
)
def test_wrong_calls_with_projections(given, message):
    with pytest.raises(CallError, match=message):
        seeded(0, dim=DIM)(*given)


@pytest.mark.parametrize(
    ("place", "given", "message"),
    [
        (0, torch.ones(2, 4, 5, 16), r"q has shape \(2, 4, 5, 16\); \(batch, sequence, 4, 16\) is needed"),
        (1, torch.ones(2, 7, 4, 16), r"k has shape \(2, 7, 4, 16\); \(batch, sequence, 2, 16\) is needed"),
        (2, torch.ones(2, 7, 2, 16), r"v has shape \(2, 7, 2, 16\); \(batch, sequence, 2, 24\) is needed"),
        (2, torch.ones(2, 6, 2, 24), "k has 7 keys and v has 6; they must be equal"),
        (1, None, "k is missing; without 'dim' a module takes q, k and v"),
        (0, torch.ones(2, 5, 4, 16, dtype=torch.float64), "q is float64; the spec says float32"),
    ],
)
def test_wrong_calls_without_projections(place, given, message):
    qkv = by_sequence()
    qkv[place] = given
    with pytest.raises(CallError, match=message):
        Attention(MODEL, layer=0)(*qkv)


def test_a_rotary_embedding_that_changes_shapes():
    with pytest.raises(CallError, match=r"k has shape \(2, 7, 2, 8\); \(batch, sequence, 2, 16\) is needed"):
        seeded(0, dim=DIM, rotary=lambda q, k: (q, k[..., :8]))(sequence())


def test_arguments_that_are_the_modules_own_or_nobodys():
    sunk = Attention(MODEL, layer=LAYERS["sunk"])
    with pytest.raises(CallError, match="'sink' is the module's own, and is not given; set its value instead"):
        sunk(*by_sequence(), sink=torch.zeros(4))
    with pytest.raises(CallError, match="kind 'sunk' takes no argument 'prefix'"):
        sunk(*by_sequence(), prefix=torch.zeros(2, dtype=torch.int32))
    biased = Attention(MODEL, layer=LAYERS["biased"])
    with pytest.raises(CallError, match="kind 'biased' needs the argument 'bias'"):
        biased(*by_sequence(), gain=1.0)
    assert biased(*by_sequence(), **keywords("biased")).shape == (2, 5, 4, 24)


@pytest.mark.parametrize(("layer", "what"), [(0, "kind 'gated' is in branches"), (1, "kind 'listed' selects keys")])
def test_kinds_without_a_backward_pass_do_not_train(layer, what):
    module = Attention(parse_spec(BRANCHED), layer=layer, dim=DIM)
    indices = torch.arange(4, dtype=torch.int32).expand(2, 7, 4)
    given = {"gates": torch.rand(2, 4, 7, 2)} if layer == 0 else {"indices": indices}
    with pytest.raises(NotGeneratedError, match=f"layer {layer}: {what}, and has no backward pass yet"):
        module(sequence(), **given)
    assert module.eval()(sequence(), **given).shape == (2, 7, DIM)

"""Backward kernels in Triton's interpreter, at sizes of a few tiles, against autograd through the float64 reference."""

import os
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attngen.op.checks import MAX_STRIDE
from attngen.op.gradients import readable
from attngen.spec.expression import Expression
from attngen.spec.kind import causal_window
from attngen.spec.model import HeadDim, Heads, Kind, Window
from tests.op.cases import Case, config_of, kind_of
from tests.op.gradient_cases import Shares, run
from tests.op.test_interpreter import FIELDS
from tests.plan.strategies import FIELDS as MASK_FIELDS

TRAINED = {name: kind for name, kind in FIELDS.items() if name != "score of functions"}
TRAINED |= {
    "score of smooth functions": kind_of(score="tanh(s) * 2 + exp(-abs(i - j) / 8) + sqrt(j + 1) * sigmoid(s)"),
    "learned gates": kind_of(score="s * gain[h] + w[b, i] * 0.3 + tanh(s) * u[j] + e[i // 3, j // 2]", softcap=4.0),
    "learned buckets": kind_of(score="max(s, r[min(max(i - j, -5), 5) + 5]) + r[2] * r[h]", alibi=True, causal=True),
    "a sink that outweighs all": kind_of(score="s - 200", sink=True),
    "learned where hidden": kind_of(score="s + log(i - j) * w[h]", causal=True, mask="i > j"),
}

SCORES = {
    "softcap": st.just(4.0),
    "alibi": st.just(True),
    "sink": st.just(True),
    "score": st.deferred(lambda: st.sampled_from(SMOOTH)).map(lambda text: Expression.parse(text, "score")),
}


@pytest.fixture(scope="session")
def gradients(interpreter):
    """Runs a case in the interpreter and checks it; returns what it found."""

    def check(case: Case, **given) -> Shares:
        found = interpreter(run, case, **given)
        assert all(share <= 1.0 for share in found.of.values()), found.of
        assert found.repeated
        return found

    return check


SMALL = {"seq_q": 21, "seq_k": 25}
PADDED = {"key_range": ((0, 20), (5, 25)), "offsets": (0, 14)}


OFTEN = {
    "causal window",
    "compressed keys",
    "chunk",
    "prefix argument",
    "always",
    "global tokens",
    "mask, two loops",
    "mask that hides all",
    "documents by mask",
    "score that hides with a sink",
    "score in every rank",
    "all",
    "learned gates",
    "learned buckets",
    "learned where hidden",
    "a sink that outweighs all",
}


@pytest.mark.parametrize(
    "field", [pytest.param(field, marks=() if field in OFTEN else pytest.mark.slow) for field in TRAINED]
)
def test_each_field(gradients, field):
    gradients(Case(TRAINED[field], config_of(), **SMALL, **PADDED), of_lse=True)


@pytest.mark.parametrize("field", ["causal", "global tokens", "all", "learned gates"])
def test_twice_the_same_bits(gradients, field):
    gradients(Case(TRAINED[field], config_of(), batch=1), twice=True)


@pytest.mark.parametrize(
    "lengths", [(1, 1), (1, 40), (40, 1), (17, 33), (33, 17), (16, 16), (0, 5), (5, 0), (0, 0)], ids=str
)
def test_lengths(gradients, lengths):
    for kind in (kind_of(alibi=True), kind_of(causal=True, sink=True), kind_of(window=Window(3, 3), score="s + w[j]")):
        gradients(Case(kind, config_of(), *lengths), of_lse=True)


def test_no_sequences(gradients):
    gradients(Case(kind_of(sink=True, score="s + w[h, i - j]"), config_of(), batch=0))


def test_strided_views(gradients):
    """What surrounds the views is NaN; gradients are laid out like what they are of."""
    kind = kind_of(heads=(4, 2), window=Window(6, 6), head_dim=(24, 40))
    found = gradients(Case(kind, config_of(), 21, 21, strided=True))
    assert found.strides["q"] == (21 * 4 * 24, 24, 4 * 24, 1)
    assert found.strides["v"] == (21 * 2 * 40, 40, 2 * 40, 1)


@pytest.mark.parametrize("heads", [(1, 1), (3, 1), (6, 2)])
def test_groups_of_heads(gradients, heads):
    kind = kind_of(heads=heads, causal=True, window=Window(8, 0), sink=True, score="s + u[h, j]")
    gradients(Case(kind, config_of(), seq_q=18, seq_k=20))


WIDE = [pytest.param(dims, marks=pytest.mark.slow) for dims in ((80, 64), (128, 128), (192, 128))]


@pytest.mark.parametrize("head_dim", [(16, 16), (24, 40), (96, 96), (256, 256), *WIDE])
def test_head_dims(gradients, head_dim):
    gradients(Case(kind_of(heads=(1, 1), head_dim=head_dim, causal=True), config_of(), seq_q=18, seq_k=20, batch=1))


@pytest.mark.parametrize("shape", [(16, 32), (32, 16), (64, 16)], ids=str)
def test_tiles(gradients, shape):
    kind = kind_of(causal=True, window=Window(20, 0), always_first=3, score="s + e[i, j]")
    gradients(Case(kind, config_of(BLOCK_M=shape[0], BLOCK_N=shape[1]), seq_q=40, seq_k=50, batch=1))


@pytest.mark.parametrize("field", ["causal", "softcap, alibi and score", "all"])
def test_float32(gradients, field):
    gradients(Case(replace(FIELDS[field], dtype="float32", head_dim=HeadDim(40, 24)), config_of(), **SMALL, **PADDED))


@pytest.mark.parametrize("wanted", [("q",), ("k",), ("v",), ("sink",), ("alibi_slopes", "v"), ("e", "q"), ("u",)])
def test_only_what_is_wanted(gradients, wanted):
    kind = kind_of(sink=True, alibi=True, score="s + e[i, j] + u[j]")
    assert set(gradients(Case(kind, config_of(), **SMALL), wanted=wanted).of) == set(wanted)


def test_shares_in_many_strips(gradients):
    """Strips of one tile of queries of one head, as long texts need them, add up to the same."""
    kind = kind_of(score="s + e[i, j] + r[h, i - j + 30]")
    gradients(Case(kind, config_of(), seq_q=40, seq_k=20, batch=1), strip_bytes=1)


SMOOTH = [
    "s + bias[h, i - j + 20]",
    "s * gain",
    "s if i == j else s - 0.1 * abs(i - j)",
    "tanh(s) * w[h] + u[b, j]",
    "s + e[i, j] - e[j, h]",
    "s * sigmoid(r[min(max(i - j, -4), 4) + 4])",
    "max(s, a[i // 2]) - exp(-abs(i - j))",
]
MASKS = ["doc[i] == doc[j]", "h % 2 == 0 or j < i - reach", "not (i < 3 and j > i // 2)", "j <= i or 3 <= j < 9"]


@st.composite
def trained_cases(draw: st.DrawFn) -> tuple[Case, bool]:
    """Any kind of up to four fields that has a backward pass, any tiles, any sizes; whether lse has a gradient."""
    names = draw(st.lists(st.sampled_from([*MASK_FIELDS, "mask", *SCORES]), max_size=4, unique=True))
    values = {name: draw({**MASK_FIELDS, **SCORES}[name]) for name in names if name != "mask"}
    if "causal" in values and "window" in values:
        values["window"] = causal_window(values["window"])
    kv, group = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (1, 3)]))
    widths = st.sampled_from([16, 24, 32])
    mask = Expression.parse(draw(st.sampled_from(MASKS)), "mask") if "mask" in names else None
    kind = Kind(
        name="kind",
        heads=Heads(kv * group, kv),
        head_dim=HeadDim(draw(widths), draw(widths)),
        dtype=draw(st.sampled_from(["float16", "float16", "float32"])),
        scale=draw(st.sampled_from([0.25, 0.1, 1.0])),
        mask=mask,
        **values,
    )
    seq_q, seq_k = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    pairs = st.tuples(st.integers(0, seq_k), st.integers(0, seq_k))
    case = Case(
        kind,
        config_of(BLOCK_M=draw(st.sampled_from([16, 32])), BLOCK_N=draw(st.sampled_from([16, 32]))),
        seq_q,
        seq_k,
        batch=draw(st.sampled_from([1, 1, 2])),
        key_range=draw(st.none() | st.tuples(pairs, pairs)),
        offsets=draw(st.none() | st.tuples(st.integers(-10, 30), st.integers(-10, 30))),
        strided=draw(st.booleans()),
        seed=draw(st.integers(0, 3)),
    )
    if case.batch == 1:
        case = replace(case, key_range=case.key_range and case.key_range[:1], offsets=case.offsets and case.offsets[:1])
    return case, draw(st.booleans())


@settings(
    max_examples=int(os.environ.get("ATTNGEN_TEST_EXAMPLES", "500")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(drawn=trained_cases())
def test_any_kind_tiles_and_sizes(gradients, drawn):
    case, of_lse = drawn
    gradients(case, of_lse=of_lse)


def test_what_kernels_cannot_read_as_it_is_laid_out_is_copied():
    """Rows of q that lie too far apart for a tile of them, in the order of heads and positions that q has."""
    far = torch.randn(3 * (MAX_STRIDE + 16)).as_strided((2, 4, 3, 16), (64, 16, MAX_STRIDE + 16, 1))
    copied = readable(far)
    assert torch.equal(copied, far) and copied.stride() == (3 * 64, 16, 64, 1)
    assert readable(copied) is copied
    assert torch.equal(readable(torch.ones(2, 4, 3, 1).expand(2, 4, 3, 16)), torch.ones(2, 4, 3, 16))

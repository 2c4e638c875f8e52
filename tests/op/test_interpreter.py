"""Generated kernels in Triton's interpreter, at sizes of a few tiles, against the float64 reference."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attngen.plan import plan_forward
from attngen.spec.expression import Expression
from attngen.spec.model import Compress, HeadDim, Heads, Kind, Window
from tests.op.cases import Case, Outcome, config_of, kind_of
from tests.plan.strategies import masked_kinds

FIELDS = {
    "every key": kind_of(),
    "causal": kind_of(causal=True),
    "window": kind_of(window=Window(7, 9)),
    "window, left": kind_of(window=Window(5, None)),
    "window, right": kind_of(window=Window(None, 4)),
    "causal window": kind_of(causal=True, window=Window(12, 0)),
    "only itself": kind_of(window=Window(0, 0)),
    "window beyond every key": kind_of(window=Window(2**31 - 1, 2**31 - 1)),
    "compressed keys": kind_of(causal=True, compress=Compress(12, 4)),
    "chunk": kind_of(chunk=10),
    "causal chunk": kind_of(causal=True, chunk=10),
    "dilation": kind_of(dilation=3),
    "causal dilation in a window": kind_of(causal=True, dilation=2, window=Window(9, 0)),
    "prefix": kind_of(causal=True, prefix=11),
    "prefix argument": kind_of(causal=True, prefix="argument"),
    "prefix of every key": kind_of(prefix="argument"),
    "always": kind_of(causal=True, window=Window(5, 0), always_first=3),
    "global tokens": kind_of(window=Window(4, 4), global_tokens=2),
    "causal global tokens": kind_of(causal=True, window=Window(4, 0), global_tokens=2),
    "linear mask": kind_of(mask="j <= i and (j > i - 9 or j < 4)"),
    "mask, two loops": kind_of(mask="i - 30 <= j < i - 20 or i - 8 <= j <= i"),
    "documents by mask": kind_of(mask="doc[b, i] == doc[b, j]", causal=True),
    "mask by head": kind_of(mask="h % 2 == 0 or abs(i - j) <= reach", window=Window(15, 15)),
    "mask of operators": kind_of(
        mask="not (i // 5 == j // 3) and (-j) % 4 < 3 or min(i, j, 9) ** 2 > 30 and max(i, j) / 2 < 14.5"
    ),
    "mask that hides all": kind_of(mask="False"),
    "mask that hides all within bounds": kind_of(mask="i + 20 < j < i - 3"),
    "scale": kind_of(scale=0.7),
    "softcap": kind_of(softcap=2.5),
    "alibi": kind_of(alibi=True),
    "score with a bias": kind_of(score="s + bias[h, i - j + 30]"),
    "score with scalars": kind_of(score="s * gain if i > j else s - shift", causal=True),
    "score of functions": kind_of(
        score="tanh(s) * 2 + exp(-abs(i - j) / 8) + sqrt(j + 1) * sigmoid(s) + log(i + 40) - floor(s / 2) * 0.5"
    ),
    "score without s": kind_of(score="-0.1 * abs(i - j)"),
    "score of constants": kind_of(score="1.5"),
    "score that hides": kind_of(score="where(i > j, s, -inf)"),
    "score that hides with a sink": kind_of(score="s if i > j else -inf", sink=True, alibi=True),
    "score in every rank": kind_of(score="s + a[h] + c[b, h, j] + e[b, h, i, j] + a[7 // 2]"),
    "softcap, alibi and score": kind_of(softcap=3.0, alibi=True, score="s + bias[h, i - j + 30]", causal=True),
    "sink": kind_of(sink=True),
    "sink in a causal window": kind_of(sink=True, causal=True, window=Window(12, 0)),
    "sink with softcap": kind_of(sink=True, softcap=2.5),
    "all": kind_of(
        causal=True,
        window=Window(12, 0),
        prefix=2,
        always_first=3,
        global_tokens=1,
        dilation=2,
        mask="doc[b, j] < 2",
        score="s * gain",
        softcap=5.0,
        alibi=True,
        sink=True,
    ),
}
PADDED = {"key_range": ((0, 30), (5, 37)), "offsets": (0, 20)}


def check(outcome: Outcome) -> None:
    assert outcome.out_error <= outcome.out_bound
    assert outcome.lse_error <= outcome.lse_bound
    assert outcome.right_rows


def windowed(kind: Kind) -> bool:
    return plan_forward(kind).span is not None and kind.dtype != "float32"


@pytest.mark.parametrize("field", FIELDS)
def test_each_field(interpret, field):
    """Pointer loads, then descriptors over padded keys that hold NaN."""
    check(interpret(Case(FIELDS[field], config_of())))
    check(interpret(Case(FIELDS[field], config_of(loads="descriptor"), **PADDED)))


@pytest.mark.parametrize("loads", ["pointer", "descriptor"])
@pytest.mark.parametrize("field", [field for field, kind in FIELDS.items() if windowed(kind)])
def test_each_bounded_window_in_its_schedule(interpret, field, loads):
    config = config_of(schedule="window", loads=loads)
    check(interpret(Case(FIELDS[field], config, seed=1)))
    check(interpret(Case(FIELDS[field], config.replace(BLOCK_N=32), seq_q=20, **PADDED)))


@pytest.mark.parametrize("field", ["every key", "causal", "mask by head", "alibi", "sink", "score in every rank"])
@pytest.mark.parametrize("pack", [2, 4])
def test_heads_packed_in_a_tile(interpret, field, pack):
    kind = FIELDS[field]
    kind = Kind(**{**vars(kind), "heads": Heads(4, 1) if pack == 4 else Heads(4, 2)})
    check(interpret(Case(kind, config_of(PACK_HEADS=pack, BLOCK_M=32), seq_q=19)))


@pytest.mark.parametrize("field", ["every key", "causal", "window", "prefix argument", "global tokens"])
def test_masks_on_every_tile(interpret, field):
    check(interpret(Case(FIELDS[field], config_of(SPLIT_MASKS=False))))


@pytest.mark.parametrize("together", [2, 3, 8])
def test_heads_side_by_side(interpret, together):
    """Sections of heads that do not divide their number."""
    kind = kind_of(heads=(5, 5), causal=True)
    check(interpret(Case(kind, config_of(HEADS_TOGETHER=together))))


@pytest.mark.parametrize("heads", [(1, 1), (3, 1), (7, 1), (6, 2), (14, 2)])
@pytest.mark.parametrize("schedule", ["portable", "window"])
def test_groups_of_heads(interpret, heads, schedule):
    kind = kind_of(heads=heads, causal=True, window=Window(8, 0), sink=True)
    check(interpret(Case(kind, config_of(schedule=schedule), seq_q=18, seq_k=20)))


HEAD_DIMS = [
    (16, 16),
    (24, 24),
    (40, 40),
    (64, 64),
    (72, 72),
    (80, 80),
    (96, 96),
    (192, 128),
    (256, 256),
    (32, 80),
    (80, 32),
]


@pytest.mark.parametrize("head_dim", HEAD_DIMS, ids=str)
@pytest.mark.parametrize("loads", ["pointer", "descriptor"])
def test_head_dims(interpret, head_dim, loads):
    for schedule in ("portable", "window"):
        kind = kind_of(head_dim=head_dim, causal=True, window=Window(9, 0))
        check(interpret(Case(kind, config_of(schedule=schedule, loads=loads), seq_q=21, seq_k=25, batch=1)))


@pytest.mark.parametrize(
    "lengths", [(1, 1), (1, 40), (40, 1), (17, 33), (33, 17), (16, 16), (0, 5), (5, 0), (0, 0)], ids=str
)
def test_lengths(interpret, lengths):
    seq_q, seq_k = lengths
    for kind in (kind_of(), kind_of(causal=True, sink=True), kind_of(window=Window(3, 3))):
        check(interpret(Case(kind, config_of(), seq_q, seq_k)))
    check(interpret(Case(kind, config_of(schedule="window", loads="descriptor"), seq_q, seq_k)))


def test_no_sequences(interpret):
    check(interpret(Case(kind_of(), config_of(), batch=0)))


@pytest.mark.parametrize("loads", ["pointer", "descriptor"])
@pytest.mark.parametrize("schedule", ["portable", "window"])
def test_strided_views(interpret, loads, schedule):
    """What surrounds the views is NaN; out is laid out like q."""
    kind = kind_of(heads=(4, 2), window=Window(6, 6), head_dim=(24, 40))
    outcome = interpret(Case(kind, config_of(schedule=schedule, loads=loads), strided=True))
    check(outcome)
    batch_stride, head_stride, row_stride, unit = outcome.out_strides
    assert (batch_stride, head_stride, row_stride, unit) == (37 * 4 * 40, 40, 4 * 40, 1)


@pytest.mark.parametrize("loads", ["pointer", "descriptor"])
@pytest.mark.parametrize("field", ["every key", "causal", "causal window", "prefix argument", "global tokens", "sink"])
def test_rows_that_see_no_key(interpret, field, loads):
    """The first sequence has no valid key; queries of the second stand before, at and past its keys."""
    ranges = {"key_range": ((7, 7), (4, 9)), "offsets": (0, -10)}
    check(interpret(Case(FIELDS[field], config_of(loads=loads), **ranges)))
    if windowed(FIELDS[field]):
        check(interpret(Case(FIELDS[field], config_of(schedule="window", loads=loads), **ranges)))


@pytest.mark.parametrize("key_range", [((-5, 12), (3, 99)), ((9, 4), (36, 37)), ((0, 0), (50, 60))], ids=str)
def test_key_ranges_beyond_the_keys_are_cut(interpret, key_range):
    for kind in (kind_of(causal=True), kind_of(window=Window(8, 8))):
        check(interpret(Case(kind, config_of(), key_range=key_range)))


@pytest.mark.parametrize("offsets", [(-40, 5), (100, -3)], ids=str)
def test_offsets_beyond_the_keys(interpret, offsets):
    for kind in (kind_of(chunk=10, causal=True), kind_of(window=Window(8, 8)), kind_of(mask="i // 7 == j // 7")):
        check(interpret(Case(kind, config_of(), offsets=offsets)))


@pytest.mark.parametrize("field", ["causal", "score of functions", "all"])
@pytest.mark.parametrize("loads", ["pointer", "descriptor"])
def test_float32(interpret, field, loads):
    kind = Kind(**{**vars(FIELDS[field]), "dtype": "float32", "head_dim": HeadDim(40, 24)})
    check(interpret(Case(kind, config_of(loads=loads), **PADDED)))


@pytest.mark.parametrize(
    "name", ["key", "first", "rows", "p", "acc_0", "row_max", "tl", "triton", "tile", "GROUP", "k_x"]
)
@pytest.mark.parametrize("schedule", ["portable", "window"])
def test_arguments_may_have_the_kernels_own_names(interpret, name, schedule):
    """A tensor, then a number, of that name beside a tensor that could be mistaken for its parts."""
    window = {"window": Window(9, 9)}
    config = config_of(schedule=schedule)
    check(interpret(Case(kind_of(score=f"s + {name}[h, j] * {name}_ptr", **window), config, seq_q=9)))
    check(
        interpret(
            Case(kind_of(score=f"s * {name} + x[i]", mask="x_size_0 < j + x_stride_0", **window), config, seq_q=9)
        )
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any kind of the language that is generated, any config, any sizes."""
    mask = st.sampled_from(["doc[i] == doc[j]", "h % 2 == 0 or j < i - reach", "not (i < 3 and j > i // 2)"])
    kind = draw(masked_kinds(mask=mask.map(lambda text: Expression.parse(text, "mask"))))
    kv, group = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2, 3, 4]))
    scores = st.sampled_from(["s + bias[h, i - j + 30]", "s * gain", "s if i == j else s - 0.1 * abs(i - j)"])
    score = draw(st.none() | scores)
    widths = st.sampled_from([16, 24, 32, 80])
    kind = Kind(
        **{
            **vars(kind),
            "heads": Heads(kv * group, kv),
            "head_dim": HeadDim(draw(widths), draw(widths)),
            "dtype": draw(st.sampled_from(["float16", "float16", "float32"])),
            "scale": draw(st.sampled_from([0.25, 0.1, 1.0])),
            "softcap": draw(st.sampled_from([None, None, 4.0])),
            "alibi": draw(st.booleans()),
            "score": None if score is None else Expression.parse(score, "score"),
            "sink": draw(st.booleans()),
        }
    )
    schedule = draw(st.sampled_from(["portable", "window"] if windowed(kind) else ["portable"]))
    pack = draw(st.sampled_from([n for n in (1, 2, 4) if group % n == 0])) if schedule == "portable" else 1
    config = config_of(
        schedule=schedule,
        loads=draw(st.sampled_from(["pointer", "descriptor"])),
        BLOCK_M=draw(st.sampled_from([16, 32])),
        BLOCK_N=draw(st.sampled_from([16, 32])),
        PACK_HEADS=pack,
        HEADS_TOGETHER=draw(st.sampled_from([1, 3])),
    )
    if schedule == "portable" and draw(st.booleans()):
        config = config.replace(SPLIT_MASKS=False)
    seq_q, seq_k = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    pairs = st.tuples(st.integers(0, seq_k), st.integers(0, seq_k))
    return Case(
        kind,
        config,
        seq_q,
        seq_k,
        key_range=draw(st.none() | st.tuples(pairs, pairs)),
        offsets=draw(st.none() | st.tuples(st.integers(-10, 40), st.integers(-10, 40))),
        strided=draw(st.booleans()),
        seed=draw(st.integers(0, 3)),
    )


@settings(
    max_examples=int(os.environ.get("ATTNGEN_TEST_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(case=cases())
def test_any_kind_config_and_sizes(interpret, case):
    check(interpret(case))

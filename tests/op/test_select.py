"""Selections of both schedules, interpreted, against a stable sort: the same keys, not almost the same."""

from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attngen.errors import CallError
from attngen.op.select import SelectLauncher
from tests.op.select_cases import TINY, plan_of, run_selection, selected

COLUMNS = 720
INF, NAN = float("inf"), float("nan")


@pytest.fixture(scope="module")
def select(interpreter):
    return partial(interpreter, run_selection)


def bounds(*pairs):
    return tuple(torch.tensor(side, dtype=torch.int32) for side in zip(*pairs, strict=True))


def rows_of(name: str, rows: int = 3, columns: int = COLUMNS) -> torch.Tensor:
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(3))
    some = torch.rand(rows, columns, generator=torch.Generator().manual_seed(4))
    if name == "one value":
        return torch.full_like(x, 1.5)
    if name == "many ties":
        return (x * 4).round() / 4
    if name == "growing":
        return x.sort(1).values
    if name == "falling":
        return x.sort(1, descending=True).values
    if name == "zeros of both signs":
        zero = torch.where(some < 0.5, -0.0, 0.0)
        return torch.where(some * 10 % 1 < 0.9, zero, x.abs())
    if name == "zeros, few above":
        return torch.where(some < 0.98, 0.0, x)
    if name == "far below zero":
        return -x.abs() - 1000
    if name == "subnormal":
        return x * 1e-42
    if name == "infinite":
        x = x.masked_fill(some < 0.6, -INF).masked_fill(some > 0.95, INF)
        x[0], x[1] = -INF, INF
        return x
    if name == "NaN":
        x = x.masked_fill(some < 0.03, NAN).masked_fill(some > 0.97, -NAN).masked_fill((some - 0.5).abs() < 0.05, INF)
        x[0] = NAN
        return x
    if name == "the largest where no sample is":
        x[:, 3::16] += 10.0
        return x
    if name == "the largest last":
        x[:, -100:] += 10.0
        return x
    return x


NAMES = (
    "normal",
    "one value",
    "many ties",
    "growing",
    "falling",
    "zeros of both signs",
    "zeros, few above",
    "far below zero",
    "subnormal",
    "infinite",
    "NaN",
    "the largest where no sample is",
    "the largest last",
)


@pytest.mark.parametrize("schedule", TINY)
@pytest.mark.parametrize("name", NAMES)
def test_rows(select, name, schedule):
    logits = rows_of(name)
    first, end = bounds((0, COLUMNS), (3, COLUMNS - 3), (16, 500))
    assert torch.equal(select(schedule, plan_of(100), logits, first, end), selected(logits, first, end, 100))


def rows_of_ties(above: int, ties: int, value: float = 0.0, rows: int = 3) -> torch.Tensor:
    """Rows with so many keys above a value, so many at it and the rest below, in any order."""
    size = torch.rand(rows, COLUMNS, generator=torch.Generator().manual_seed(5)) + 0.5
    place = torch.rand(rows, COLUMNS, generator=torch.Generator().manual_seed(6)).argsort(1)
    tie = torch.full_like(size, value)
    tie[:, ::3] = -value if value == 0.0 else value
    return torch.where(place < above, value + size, torch.where(place < above + ties, tie, value - size))


# Keys above the tie, and ties: of 720, for a top k of 100.
ABOVE_AND_TIES = ((0, 720), (0, 400), (7, 713), (72, 648), (72, 500), (99, 621), (100, 620), (101, 619), (130, 590))
ABOVE_AND_TIES += ((300, 420), (20, 90), (20, 80), (20, 79))


@pytest.mark.parametrize("schedule", TINY)
def test_ties_of_the_least_that_is_selected(select, schedule):
    """Zeros and others, many and just enough or one too few, in whole rows and in parts of rows."""
    cases = [(*counts, (0.0, -3.0)[n % 2]) for n, counts in enumerate(ABOVE_AND_TIES)]
    logits = torch.cat([rows_of_ties(*case, rows=2) for case in cases])
    first, end = bounds(*[(0, COLUMNS), (130, 430)] * len(cases))
    assert torch.equal(select(schedule, plan_of(100), logits, first, end), selected(logits, first, end, 100))


@pytest.mark.parametrize("schedule", TINY)
def test_ties_that_only_a_sample_has(select, schedule):
    """Runs of 8 at every step of a sample are zeros and all else is less: too few; in the last row, enough."""
    for runs in (TINY[schedule]["SAMPLE"] // 8, 2):
        step = COLUMNS // runs
        logits = -1.0 - torch.rand(3, COLUMNS, generator=torch.Generator().manual_seed(7))
        for run in range(runs):
            logits[:, run * step : run * step + 8] = 0.0
        logits[2, ::2] = 0.0
        first, end = bounds(*[(0, COLUMNS)] * 3)
        assert torch.equal(select(schedule, plan_of(140), logits, first, end), selected(logits, first, end, 140))


@pytest.mark.parametrize("schedule", TINY)
@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_ties_that_are_not_finite(select, value, schedule):
    logits = rows_of_ties(40, 600).masked_fill(rows_of_ties(40, 600) == 0.0, value)
    first, end = bounds((0, COLUMNS), (3, COLUMNS - 3), (16, 16 + 400))
    result = select(schedule, plan_of(100, first=4, last=9), logits, first, end)
    assert torch.equal(result, selected(logits, first, end, 100, 4, 9))


@pytest.mark.parametrize("schedule", TINY)
def test_bounds_of_rows(select, schedule):
    """Empty, reversed, outside, of one key, of top_k keys and of one more, within and across tiles."""
    pairs = [(0, 0), (7, 7), (9, 4), (-5, 60), (COLUMNS - 70, COLUMNS + 9), (COLUMNS + 4, COLUMNS + 9), (5, 6)]
    pairs += [(13, 63), (13, 64), (127, 300), (1, 700), (0, -4)]
    logits = rows_of("normal", len(pairs))
    first, end = bounds(*pairs)
    assert torch.equal(select(schedule, plan_of(50), logits, first, end), selected(logits, first, end, 50))


@pytest.mark.parametrize("schedule", TINY)
@pytest.mark.parametrize("top_k, first, last", [(1, 0, 0), (1, 1, 0), (1, 0, 1), (60, 3, 5), (60, 60, 0), (256, 0, 7)])
def test_top_k_and_keys_that_are_always_selected(select, schedule, top_k, first, last):
    logits = rows_of("NaN", 3)
    key_first, key_end = bounds((0, COLUMNS), (5, COLUMNS - 9), (11, 11 + top_k + 1))
    result = select(schedule, plan_of(top_k, first=first, last=last), logits, key_first, key_end)
    assert torch.equal(result, selected(logits, key_first, key_end, top_k, first, last))


@pytest.mark.parametrize("schedule", TINY)
def test_bfloat16(select, schedule):
    logits = rows_of("normal", 3).bfloat16()
    first, end = bounds((0, COLUMNS), (3, COLUMNS - 5), (8, 60))
    result = select(schedule, plan_of(100, logits="bfloat16"), logits, first, end)
    assert torch.equal(result, selected(logits, first, end, 100))


def test_rows_of_a_wider_tensor(select):
    wide = rows_of("many ties", 3, 1600)
    logits, (first, end) = wide[:, 32:700], bounds((0, 668), (1, 667), (400, 668))
    assert torch.equal(select("portable", plan_of(100), logits, first, end), selected(logits, first, end, 100))


VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-149, 3.0e38, INF, -INF, NAN]) | st.floats(width=32)


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_rows(select, data):
    """Few different values, so that ties are everywhere, in the order that a seed gives."""
    values = torch.tensor(data.draw(st.lists(VALUES, min_size=1, max_size=12)), dtype=torch.float32)
    seed = data.draw(st.integers(0, 2**31))
    logits = values[torch.randint(len(values), (2, 608), generator=torch.Generator().manual_seed(seed))]
    pairs = [sorted(data.draw(st.tuples(st.integers(0, 600), st.integers(0, 600)))) for _ in range(2)]
    top_k = data.draw(st.integers(1, 200))
    first = data.draw(st.integers(0, top_k))
    last = data.draw(st.integers(0, top_k - first))
    key_first, key_end = bounds(*pairs)
    schedule = data.draw(st.sampled_from(sorted(TINY)))
    result = select(schedule, plan_of(top_k, first=first, last=last), logits, key_first, key_end)
    assert torch.equal(result, selected(logits, key_first, key_end, top_k, first, last))


@pytest.mark.parametrize(
    "logits, first, end, words",
    [
        (torch.zeros(2, 64, dtype=torch.float16), None, None, "float32 is needed"),
        (torch.zeros(64), None, None, "(rows, columns)"),
        (torch.zeros(64, 2).T, None, None, "side by side"),
        (torch.zeros(2, 60), None, None, "multiple of 16"),
        (torch.zeros(2, 64), torch.zeros(2, dtype=torch.int64), None, "int32 is needed"),
        (torch.zeros(2, 64), torch.zeros(3, dtype=torch.int32), None, "(2,)"),
        (torch.zeros(2, 64), None, 64, "a torch.Tensor is needed"),
    ],
)
def test_wrong_calls(logits, first, end, words):
    zeros = torch.zeros(2, dtype=torch.int32)
    with pytest.raises(CallError) as error:
        SelectLauncher(plan_of(8), TINY["portable"])(
            logits, zeros if first is None else first, zeros if end is None else end
        )
    assert words in str(error.value)


def test_wrong_out_and_no_rows():
    launcher, zeros = SelectLauncher(plan_of(8), TINY["portable"]), torch.zeros(2, dtype=torch.int32)
    with pytest.raises(CallError, match=r"\(2, 8\) int32"):
        launcher(torch.zeros(2, 64), zeros, zeros, out=torch.zeros(2, 9, dtype=torch.int32))
    assert launcher(torch.zeros(0, 64), zeros[:0], zeros[:0]).shape == (0, 8)

"""Reads of a score: which have a derivative, and on which positions the place of each depends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attngen.spec.evaluate import evaluate
from attngen.spec.expression import Expression, Tensor
from attngen.spec.reads import Dependence, dependence, reads


def reads_of(text: str) -> tuple[Tensor, ...]:
    return reads(Expression.parse(text, "score").tree)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("s", []),
        ("b_1[i] + s * a[j] - b_1[i]", ["b_1", "a"]),
        ("a[i] + a[j]", ["a", "a"]),
        ("s + emb[floor(sort[b, i]), floor(sort[b, j])]", ["emb"]),
        ("where(doc[i] == doc[j], s + c[0], max(s, d[0]))", ["c", "d"]),
        ("s * floor(t[i]) + t[i] // 2 + t[j] % u[j]", ["t", "u"]),
        ("t[i]", ["t"]),
    ],
)
def test_reads_are_those_with_a_derivative_in_the_order_written(text, names):
    assert [read.id for read in reads_of(text)] == names


CASES = {
    "none": ["0", "h, b", "floor(size)", "h // 2"],
    "query": ["i", "h, i // 16", "floor(doc[b, i])", "max(i - 5, 0)"],
    "key": ["j", "b, j % 3", "where(j > 4, j, 0)"],
    "distance": [
        "i - j",
        "h, j - i + 128",
        "max(min(i - j, 128), -128) + 128",
        "-(i - j)",
        "abs(i - j) // 4",
        "2 * i - j * 2 + 5",
        "floor(log(abs(i - j) + 1) * 2)",
        "max(i, j) - j",
        "where(i > j + 3, 1, i - j)",
        "where(not (i == j or i < j), 1, 0)",
        "floor(table[i - j, h])",
        "i - j, j - i",
    ],
    "both": [
        "i, j",
        "i + j",
        "i // 2 - j // 2",
        "2 * i - j",
        "i * j",
        "i * h - j * h",
        "max(i, 4) - j",
        "floor(i / 3 - j / 3)",
        "floor(i * 0.1 - j * 0.1)",
        "floor(doc[i]) - floor(doc[j])",
        "floor(sort[b, i]), floor(sort[b, j])",
        "where(i > 4, i - j, 0)",
        "floor(s)",
        "i - j, j",
    ],
}


@pytest.mark.parametrize(("positions", "indices"), [(kind, text) for kind, texts in CASES.items() for text in texts])
def test_positions(positions, indices):
    (read,) = reads_of(f"s + t[{indices}]")
    assert dependence(read).positions == positions


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        ("h, i - j", Dependence("distance", head=True, batch=False)),
        ("floor(doc[b, i])", Dependence("query", head=False, batch=True)),
        ("0", Dependence("none", head=False, batch=False)),
        ("floor(s)", Dependence("both", head=True, batch=True)),
    ],
)
def test_heads_and_batches(indices, expected):
    (read,) = reads_of(f"s + t[{indices}]")
    assert dependence(read) == expected


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    two = st.sampled_from(
        ["({}) + ({})", "({}) - ({})", "({}) - ({})", "({}) * ({})", "({}) // (({}) ** 2 + 1)", "min({}, {})",
         "max({}, {})", "where(({}) > ({}), 1, 0)", "where(i > j, {}, {})", "abs({}) % (abs({}) + 1)"]
    )  # fmt: skip
    return st.builds(str.format, two, inner, inner)


@given(st.recursive(st.sampled_from(["i", "j", "i - j", "2", "h"]), grown, max_leaves=6), st.integers(1, 9))
def test_what_is_told_holds(index, step):
    """A read that is said not to depend on a position stays where it is when only that moves."""
    (read,) = reads_of(f"s + t[{index}]")
    moves = {"none": (2, 5), "query": (0, 1), "key": (1, 0), "distance": (1, 1), "both": (0, 0)}
    di, dj = moves[dependence(read).positions]
    for i, j in ((0, 0), (3, 7), (7, 3)):
        here = evaluate(read.indices[0], {"i": i, "j": j, "h": 1}, {})
        there = evaluate(read.indices[0], {"i": i + di * step, "j": j + dj * step, "h": 1}, {})
        assert here == there

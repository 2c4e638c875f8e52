"""Derivatives of scores: what they read like, and that they are what autograd computes."""

import ast
import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from attngen.source.elements import Reads, write
from attngen.spec.derivative import derivative
from attngen.spec.evaluate import evaluate
from attngen.spec.expression import Binary, Expression, Name, Node, Number, Tensor, walk
from attngen.spec.reads import reads
from tests.plan.strategies import scores

S = Name("s")
POSITIONS = {name: name for name in "sijhb"}


def score(text: str) -> Node:
    return Expression.parse(text, "score").tree


@pytest.mark.parametrize(
    ("text", "slope"),
    [
        ("s + bias[h, i - j]", "1.0"),
        ("s * gain + bias[h, i - j]", "gain_value"),
        ("i * 2 - j", "0.0"),
        ("s / 3", "1.0 / 3"),
        ("s / gain", "1.0 / gain_value"),
        ("gain / s", "-(gain_value / s) / s"),
        ("0.5 * s ** 2", "s"),
        ("s ** 3", "3 * s * s"),
        ("s * s * s", "3 * s * s"),
        ("s ** -2", "-2 * 1.0 / (s * s) / s"),
        ("50 * tanh(s / 50)", "1.0 - tanh(s / 50) * tanh(s / 50)"),
        ("sigmoid(s)", "(1.0 - sigmoid(s)) * sigmoid(s)"),
        ("exp(gain * s)", "gain_value * tl.exp(gain_value * s)"),
        ("log(s)", "1.0 / s"),
        ("sqrt(s)", "0.5 / tl.sqrt(s)"),
        ("s % gain", "1.0"),
        ("gain % s", "-tl.floor(gain_value / s)"),
        ("s // 2 + floor(s)", "0.0"),
        ("s * floor(s)", "1.0 * tl.floor(s).to(tl.int32)"),
        ("where(i > j, s, -inf)", "tl.where(i > j, 1.0, 0.0)"),
        ("where(s > 0, s, s + 1)", "1.0"),
        ("where(s > 0, log(s), 0)", "tl.where(s > 0, 1.0 / s, 0.0)"),
        ("abs(s)", "tl.where(s > 0, 1.0, tl.where(s < 0, -1.0, 0.0))"),
        ("max(s, 0)", "tl.where(s < 0, 0.0, tl.where(s > 0, 1.0, 0.5))"),
        ("3 * (s - gain) ** 2", "6 * (s - gain_value)"),
        ("s * i * j", "1.0 * i * j"),
        ("s * i * gain", "gain_value * i"),
        ("s * 99999 * 99999", "9999800001.0"),
    ],
)
def test_slopes_in_the_score(text, slope):
    assert write(derivative(score(text), S), POSITIONS, Reads()) == slope


@pytest.mark.parametrize(
    ("text", "slopes"),
    [
        ("s + bias[h, i - j]", ["1.0"]),
        ("s + t[h] * t[j] + t[h]", ["1.0 + t_at_0", "t_at_0"]),
        ("s * u[floor(t[0])]", ["s"]),
        ("exp(s + bias[i, j])", ["tl.exp(s + bias_at_0)"]),
    ],
)
def test_slopes_in_the_elements_it_reads(text, slopes):
    tree = score(text)
    assert [write(derivative(tree, read), POSITIONS, Reads()) for read in reads(tree)] == slopes


@pytest.mark.parametrize(
    ("text", "s", "slope"),
    [
        ("max(s, 1)", 1.0, 0.5),
        ("min(s, 1)", 1.0, 0.5),
        ("min(max(s, -5), 5)", 5.0, 0.5),
        ("max(s, 2 * s)", 0.0, 1.5),
        ("max(1, s, 1)", 1.0, 0.25),
        ("abs(s)", 0.0, 0.0),
        ("max(log(s), -5)", 0.0, 0.0),
    ],
)
def test_at_ties_and_where_the_other_side_has_no_slope(text, s, slope):
    assert evaluate(derivative(score(text), S), {"s": torch.tensor(s, dtype=torch.float64)}, {}) == slope


@pytest.mark.parametrize(
    "text",
    ["sigmoid(s)", "tanh(s)", "sigmoid(tanh(s) * s)", "s / (1 + abs(s))", "(s / 1e30) ** 16", "1e30 / (2e30 + s)"],
)
@pytest.mark.parametrize("s", [-1e30, -1000.0, -50.0, 0.0, 50.0, 1000.0, 1e30])
def test_a_slope_is_finite_in_float32_where_the_score_is(text, s):
    tree = score(text)
    values = {"s": torch.tensor([s])}  # of one dimension, or numbers would make it float64
    assert math.isfinite(evaluate(tree, values, {}))
    assert math.isfinite(evaluate(derivative(tree, S), values, {}))


def test_autograd_passes_through_a_floor_division():
    s = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    evaluate(score("s * (s // 2)"), {"s": s}, {}).backward()
    assert s.grad == 2.0


quarters = st.integers(-8, 8).map(lambda n: n / 4)  # few values, and exact ones: many ties
small = st.integers(0, 3)


def values(*shape: int) -> st.SearchStrategy[torch.Tensor]:
    count = math.prod(shape)
    return st.lists(quarters, min_size=count, max_size=count).map(
        lambda numbers: torch.tensor(numbers, dtype=torch.float64).reshape(shape).requires_grad_()
    )


@st.composite
def points(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Names and arguments of one element of a score."""
    names = {"i": draw(small), "j": draw(small), "h": draw(st.integers(0, 1)), "b": 0}
    arguments = {"gain": draw(quarters), "bias": draw(values(2, 5)), "w": draw(values(3, 2))}
    return {"s": draw(values()), **names}, arguments


def place(read: Tensor, names: dict[str, Any], arguments: dict[str, Any]) -> tuple[int, ...]:
    indices = [int(evaluate(index, names, arguments)) for index in read.indices]
    return tuple(min(max(n, 0), size - 1) for n, size in zip(indices, arguments[read.id].shape, strict=True))


def magnitude(tree: Node, names: dict[str, Any], arguments: dict[str, Any]) -> float:
    """The largest number on the way to the value of ``tree``."""
    return max(abs(float(evaluate(node, names, arguments))) for node in walk(tree))


@settings(max_examples=150, deadline=None)
@given(scores, points())
def test_slopes_are_those_of_autograd(expression, point):
    tree, (names, arguments) = expression.tree, point
    variables = [names["s"], arguments["bias"], arguments["w"]]
    value = evaluate(tree, names, arguments)
    expected = (
        torch.autograd.grad(value, variables, allow_unused=True, materialize_grads=True)
        if value.requires_grad
        else [torch.zeros_like(variable) for variable in variables]
    )
    assume(all(gradient.isfinite().all() for gradient in expected))
    with torch.no_grad():
        slopes = {wrt: derivative(tree, wrt) for wrt in (S, *reads(tree))}
        scale = max(magnitude(part, names, arguments) for part in (tree, *slopes.values()))
        assume(scale < 1e6)
        actual = [torch.zeros_like(variable) for variable in variables]
        for wrt, slope in slopes.items():
            gradient = actual[["s", "bias", "w"].index(wrt.id)]
            gradient[place(wrt, names, arguments) if isinstance(wrt, Tensor) else ()] += evaluate(
                slope, names, arguments
            )
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-12 * scale)


@settings(max_examples=100, deadline=None)
@given(scores)
def test_slopes_are_floats_of_the_language(expression):
    tree = expression.tree
    known = set(walk(tree))
    for wrt in (S, *reads(tree)):
        slope = derivative(tree, wrt)
        assert slope.type == "float"
        ast.parse(write(slope, POSITIONS, Reads()))
        added = [node for node in walk(slope) if isinstance(node, Binary) and node not in known]
        assert all(node.type == "float" or node.op == "//" for node in added)  # int32 could overflow
        assert slope == derivative(tree, wrt)


@pytest.mark.parametrize(
    "text",
    [
        "max(s, " + ", ".join(map(str, range(15))) + ")",
        "abs(" * 30 + "s" + " - 1)" * 30,
        "s / (1 + " * 30 + "s" + ")" * 30,
        "*".join(f"sigmoid(s * t{n}[h])" for n in range(15)),
    ],
)
def test_slopes_grow_with_the_square_of_the_score_at_most(text):
    tree = score(text)
    size = sum(1 for _ in walk(tree))
    assert sum(1 for _ in walk(derivative(tree, S))) <= 2 * size**2


def test_numbers_alone():
    assert derivative(score("i * 2"), S) == Number(0.0)
    assert derivative(score("s"), S) == Number(1.0)

"""Expressions: what the small language accepts, the trees it makes, and that nothing else gets through."""

import pickle

import pytest

from attngen.spec.expression import (
    Binary,
    Compare,
    Expression,
    ExpressionError,
    Logic,
    Name,
    Number,
    Scalar,
    Select,
)

QUERY, KEY, S = Name("i"), Name("j"), Name("s")


def test_chained_comparison_becomes_a_conjunction():
    tree = Expression.parse("i - 8 < j <= i", "mask").tree
    assert tree == Logic("and", (Compare("<", Binary("-", QUERY, Number(8)), KEY), Compare("<=", KEY, QUERY)))


def test_bare_names_are_numbers_and_subscripted_names_are_tensors():
    expression = Expression.parse("s * gain + bias[h, i - j + 128] - table[b]", "score")
    assert expression.scalars == ("gain",)
    assert expression.tensors == (("bias", 2), ("table", 1))
    assert Scalar("gain").type == "float"


def test_both_spellings_of_a_choice_make_one_node():
    written = Expression.parse("s if i > j else -inf", "score").tree
    assert written == Expression.parse("where(i > j, s, -inf)", "score").tree
    assert written == Select(Compare(">", QUERY, KEY), S, Number(float("-inf")))


def test_text_is_normal_and_parses_to_the_same_tree():
    expression = Expression.parse("\n  ( (i-j) )//4<\t2  or( j<n )", "mask")
    assert expression.text == "(i - j) // 4 < 2 or j < n"
    assert Expression.parse(expression.text, "mask") == expression


@pytest.mark.parametrize(
    ("text", "type"),
    [
        ("i // 2", "int"),
        ("i / 2", "float"),
        ("i % 2", "int"),
        ("i ** 2", "int"),
        ("i ** -2", "float"),
        ("max(i, 2)", "int"),
        ("max(i, 2.0)", "float"),
        ("floor(x)", "int"),
        ("where(i > j, 1, 0)", "int"),
        ("abs(-i)", "int"),
        ("sqrt(i)", "float"),
        ("i * inf", "float"),
    ],
)
def test_types(text, type):
    assert Expression.parse(text, "score").tree.type == type


def test_integers_and_floats_of_equal_value_are_different_nodes():
    assert Number(1) != Number(1.0)
    assert len({Number(1), Number(1.0)}) == 2


@pytest.mark.parametrize(
    ("text", "role", "column", "message"),
    [
        ("i - j", "mask", 0, "a mask must be a condition, and this is a number; compare it: '... != 0', for example"),
        ("i < j", "score", 0, "a score must be a number, and this is a condition; where(condition, s, -inf) is one"),
        ("s > 0", "mask", 0, "a mask cannot use the score s; s belongs to 'score', which may give -inf"),
        ("i > j & j > 2", "mask", 4, "operator '&' is not part of the expression language; write 'and'"),
        ("i in j", "mask", 0, "operator 'in' is not part of the expression language; compare with '==' and 'or'"),
        ("s + abss(i)", "score", 4, "unknown function 'abss'; did you mean 'abs'?"),
        ("s * q", "score", 4, "'q' already names an argument of the op; choose another name for yours"),
        ("s + _x", "score", 4, "'_x' cannot name an argument; letters first, at most 40 characters"),
        ("t[i] + t[i, j]", "score", 7,
         "'t' is used in two ways: a tensor of rank 1 or a tensor of rank 2; an argument keeps one rank everywhere"),
        ("t + t[i]", "score", 4,
         "'t' is used in two ways: a number or a tensor of rank 1; an argument keeps one rank everywhere"),
        ("t[i / 2]", "score", 2, "an index of 't' is not an integer; floor(...) makes it one"),
        ("t[i, j, h, b, 0]", "score", 0, "'t' is indexed by 5 expressions; 1 to 4 are allowed"),
        ("i[0]", "score", 0, "'i' is not a tensor; rename the tensor"),
        ("s + (i == j)", "score", 5,
         "the right side of '+' is a condition; turn it into a number with where(condition, 1, 0)"),
        ("i and j", "mask", 0, "one side of 'and' is a number; compare it: '... != 0', for example"),
        ("where(i > j, s, i > j)", "score", 0, "one choice is a number, the other a condition; both must be alike"),
        ("where(i > j, s)", "score", 0, "where() has 2 argument(s); it takes 3"),
        ("max(i)", "score", 0, "max() has 1 argument(s); it takes 2 to 16"),
        ("exp(x=1)", "score", 0, "exp() is called with keywords or stars; plain arguments would be right"),
        ("s * exp", "score", 4, "'exp' is a function; call it: exp(...)"),
        ("i // 0", "score", 5, "the right side of '//' is zero; divide by something else"),
        ("s ** x", "score", 5,
         "the exponent of '**' is not a small whole number; "
         "a whole number from -16 to 16 would be right; exp(y * log(x)) is x**y"),
        ("s + 99999999999", "score", 4, "a number too large; integers go to 2147483647, and 'inf' is infinity"),
        ("s + 1e999", "score", 4, "a number too large; integers go to 2147483647, and 'inf' is infinity"),
        ("", "mask", 0, "the mask expression is empty; 'i - j < 128' is one"),
        ("i < (j", "mask", 4, "the mask expression is not arithmetic that can be read; 'i - j < 128' is one that can"),
    ],
)  # fmt: skip
def test_refusals_say_what_and_where(text, role, column, message):
    with pytest.raises(ExpressionError) as caught:
        Expression.parse(text, role)
    assert (caught.value.column, str(caught.value)) == (column, message)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__[0].__subclasses__()",
        "(lambda: i)()",
        "[i for i in j]",
        "(i := 2)",
        "f'{i}'",
        "'a' * 10",
        "9 ** 9 ** 9 ** 9",
        "i.real",
        "min(*t)",
        "bias[1:2]",
        "1j",
        "None",
        "...",
        "await i",
        "yield",
        "i; j",
        "i # j",
        "i \\\n + j",
        "\u0131 + j",
        "i\x00",
        "(" * 300,
        "-" * 900 + "i",
        "not " * 200 + "i",
        "i + " * 240 + "i",
        "i" * 2000,
    ],
)
def test_nothing_but_the_language_gets_through(text):
    for role in ("mask", "score"):
        with pytest.raises(ExpressionError) as caught:
            Expression.parse(text, role)
        assert "\n" not in str(caught.value)


def test_values_and_errors_travel_between_processes():
    expression = Expression.parse("s + t[i]", "score")
    assert pickle.loads(pickle.dumps(expression)) == expression
    error = ExpressionError("wrong", "right", 3)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)

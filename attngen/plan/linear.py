"""Bounds hidden in a mask expression: comparisons that are linear in i and j become intervals.

A mask such as ``j > i - 128 and (j <= i or j < 16)`` is put into disjunctive form; every comparison of whole
numbers that can be solved for j is a bound, and everything else stays a residual test of the elements.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import sympy as sp

from attngen.plan.keys import Bound, I, Term
from attngen.spec.nodes import Binary, Boolean, Call, Compare, Logic, Name, Node, Not, Number, Unary

Comparison = Literal["<", "<=", ">", ">=", "==", "!="]

MAX_TERMS = 4  # a mask with more alternatives is tested element by element

_NEGATED: dict[str, Comparison] = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
_TURNED: dict[str, Comparison] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "=="}


class Linear(NamedTuple):
    """i * rows + j * keys + constant, with whole coefficients."""

    rows: int
    keys: int
    constant: int


def mask_terms(tree: Node) -> tuple[Term, ...]:
    """The terms whose union is the mask."""
    terms = _terms(tree)
    return terms if len(terms) <= MAX_TERMS else (_residual(tree),)


def _residual(node: Node) -> Term:
    return Term((), (), (node,))


def _terms(node: Node) -> tuple[Term, ...]:
    match node:
        case Boolean(value=True):
            return (Term((), ()),)
        case Logic(op="or", operands=operands):
            return tuple(term for operand in operands for term in _terms(operand))
        case Logic(op="and", operands=operands):
            terms: tuple[Term, ...] = (Term((), ()),)
            for operand in operands:
                alternatives = _terms(operand)
                if len(terms) * len(alternatives) > MAX_TERMS:
                    alternatives = (_residual(operand),)
                terms = tuple(_both(a, b) for a in terms for b in alternatives)
            return terms
        case Not(operand=operand):
            return _negation(operand)
        case Compare(op="<" | "<=" | ">" | ">=" as op, left=Call(function="abs", arguments=(x,)), right=right):
            both = (Compare(op, x, right), Compare(op, Unary("-", x), right))
            terms = _terms(Logic("and" if op in ("<", "<=") else "or", both))
            return (_residual(node),) if any(term.residual for term in terms) else terms
        case Compare(op="<" | "<=" | ">" | ">=" as op, left=left, right=Call(function="abs") as right):
            return _terms(Compare(_TURNED[op], right, left))
        case Compare(op=op, left=left, right=right):
            return _comparison(node, op, left, right)
        case _:
            return (_residual(node),)


def _both(a: Term, b: Term) -> Term:
    return Term(a.lowers + b.lowers, a.uppers + b.uppers, a.residual + b.residual)


def _negation(node: Node) -> tuple[Term, ...]:
    match node:
        case Not(operand=operand):
            return _terms(operand)
        case Boolean(value=value):
            return _terms(Boolean(not value))
        case Compare(op=op, left=left, right=right) if left.type == right.type == "int":
            return _terms(Compare(_NEGATED[op], left, right))
        case Logic(op=op, operands=operands):
            return _terms(Logic("or" if op == "and" else "and", tuple(Not(operand) for operand in operands)))
        case _:
            return (_residual(Not(node)),)


def _comparison(node: Node, op: str, left: Node, right: Node) -> tuple[Term, ...]:
    """``left op right`` solved for j, when it is linear with a j coefficient of 1 or -1."""
    a, b = _linear(left), _linear(right)
    if a is None or b is None or op not in _TURNED:
        return (_residual(node),)
    rows, keys, constant = a.rows - b.rows, a.keys - b.keys, a.constant - b.constant
    if keys == 1:  # j op -(rows * i + constant)
        rows, constant = -rows, -constant
    elif keys == -1:  # rows * i + constant op j
        op = _TURNED[op]
    else:
        return (_residual(node),)
    edge = rows * I + sp.Integer(constant)
    rising = rows >= 0
    lower = {">": edge + 1, ">=": edge, "==": edge}.get(op)
    upper = {"<": edge, "<=": edge + 1, "==": edge + 1}.get(op)
    return (
        Term(
            () if lower is None else (Bound(lower, rising),),
            () if upper is None else (Bound(upper, rising),),
        ),
    )


def _linear(node: Node) -> Linear | None:
    match node:
        case Number(value=value) if isinstance(value, int):
            return Linear(0, 0, value)
        case Name(id="i"):
            return Linear(1, 0, 0)
        case Name(id="j"):
            return Linear(0, 1, 0)
        case Unary(op="-", operand=operand):
            return _scaled(_linear(operand), -1)
        case Binary(op="+" | "-" as op, left=left, right=right):
            a, b = _linear(left), _scaled(_linear(right), 1 if op == "+" else -1)
            return None if a is None or b is None else Linear(*(x + y for x, y in zip(a, b, strict=True)))
        case Binary(op="*", left=left, right=right):
            a, b = _linear(left), _linear(right)
            if a is None or b is None:
                return None
            if a.rows == a.keys == 0:
                return _scaled(b, a.constant)
            return _scaled(a, b.constant) if b.rows == b.keys == 0 else None
        case _:
            return None


def _scaled(linear: Linear | None, factor: int) -> Linear | None:
    return None if linear is None else Linear(*(factor * x for x in linear))

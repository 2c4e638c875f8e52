"""The same pairs seen from the keys: which queries see a key, from which keys a query sees.

Each bound of a term is a monotone expression of the query's position that can be solved for it. What comes out is a
term again, in which the roles are exchanged: ``I`` stands for the position of a key, I_FIRST and I_LAST for the ends of
a tile of keys, and KEY_FIRST and KEY_END for the positions of the first query and one past the last.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import sympy as sp

from attngen.plan.keys import KEY_END, KEY_FIRST, Bound, FloorDiv, I, Term


def transposed(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    """For each term, the queries that see a key by it; residual tests stay as they are."""
    return tuple(_transposed(term) for term in terms)


class _Side(NamedTuple):
    """A bound on queries, and on which side of them."""

    lower: bool
    bound: Bound


def _transposed(term: Term) -> Term:
    sides = [_solved(bound.expression, I, above=False) for bound in term.lowers]
    sides += [_solved(bound.expression, I, above=True) for bound in term.uppers]
    lowers = tuple(side.bound for side in sides if side.lower)
    uppers = tuple(side.bound for side in sides if not side.lower)
    return replace(term, lowers=lowers, uppers=uppers)


def _solved(e: sp.Expr, y: sp.Expr, above: bool) -> _Side:
    """The queries for which ``e``, an expression of their position, is at most ``y``, one of the key's, or ``above``
    it."""
    if e == I:
        return _Side(above, _moving(y + 1))
    if not e.has(I):  # all queries, or none
        smaller, otherwise = (KEY_END, KEY_FIRST) if above else (KEY_FIRST, KEY_END)
        return _Side(False, Bound(sp.Piecewise((smaller, sp.Lt(y, e)), (otherwise, True)), rising=not above))
    if isinstance(e, sp.Piecewise):  # every valid key, for the queries of a condition
        (_, condition), _ = e.args
        assert above and condition.lhs == I
        return _Side(False, Bound(condition.rhs))
    if isinstance(e, FloorDiv):
        rest, divisor = e.args
        return _solved(rest, divisor * y + divisor - 1, above)
    if isinstance(e, sp.Add):
        constant, rest = e.as_independent(I)
        return _solved(rest, y - constant, above)
    factor, rest = e.as_coeff_Mul()
    if factor > 0:
        return _solved(rest, _floor_div(y, factor), above)
    return _solved(rest, -_floor_div(y, -factor) - 1, not above)


def _moving(e: sp.Expr) -> Bound:
    """A bound that moves with the key, up or down."""
    ends = [sp.Integer(sign * 2**20) for sign in (-1, 1)]
    low, high = (e.subs(I, end) for end in ends)
    return Bound(e, rising=bool(low <= high))


def _floor_div(a: sp.Expr, b: sp.Integer) -> sp.Expr:
    """a // b, multiples of b taken out."""
    if b == 1:
        return a
    constant, rest = a.as_coeff_Add()
    whole = sp.Integer(int(constant) // int(b))
    return FloorDiv(rest + (constant - whole * b), b) + whole

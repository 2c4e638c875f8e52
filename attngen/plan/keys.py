"""The keys a tile of queries sees, as symbolic intervals.

A *term* is a conjunction: key j is in it for the query at position i when every lower bound is <= j, every upper
bound is > j, and every residual test (a dilation, a mask expression) holds. A kind sees the union of its terms.

Each bound is a SymPy expression of i, monotone in i, so its extremes over the positions i_first..i_last of a tile
are its values at the two ends. That gives, for a tile and a term,

    outer: keys that some query may see        [max of least lower bounds, min of greatest upper bounds)
    inner: keys that every query does see      [max of greatest lower bounds, min of least upper bounds)

Outer is a cover (nothing visible lies outside it), inner is exact (nothing in it is hidden); keys between the two
need the elementwise mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from attngen.spec.expression import Node

# Positions of the tile's first and last query; i stands for any query between them.
I = sp.Symbol("i", integer=True)
I_FIRST = sp.Symbol("i_first", integer=True)
I_LAST = sp.Symbol("i_last", integer=True)
# Valid keys of the sequence: [key_first, key_end), within [0, seq_k).
KEY_FIRST = sp.Symbol("key_first", integer=True, nonnegative=True)
KEY_END = sp.Symbol("key_end", integer=True, nonnegative=True)
PREFIX = sp.Symbol("prefix", integer=True, nonnegative=True)  # a run-time prefix length


class FloorDiv(sp.Function):
    """Floor division of integers, kept whole so that it prints as one operation."""

    nargs = 2

    @classmethod
    def eval(cls, a, b):
        if a.is_Integer and b.is_Integer:
            return sp.Integer(int(a) // int(b))
        return None

    def _eval_is_integer(self):
        return True


@dataclass(frozen=True)
class Bound:
    """A bound on keys as a function of the query position I, rising or falling with it."""

    expression: sp.Expr
    rising: bool = True

    def least(self) -> sp.Expr:
        return self.expression.subs(I, I_FIRST if self.rising else I_LAST)

    def greatest(self) -> sp.Expr:
        return self.expression.subs(I, I_LAST if self.rising else I_FIRST)


@dataclass(frozen=True)
class Dilation:
    """Residual test: (i - j) % step == 0."""

    step: int


@dataclass(frozen=True)
class Term:
    """A conjunction of bounds and residual tests; ``why`` says in the user's words where it comes from."""

    lowers: tuple[Bound, ...]
    uppers: tuple[Bound, ...]
    residual: tuple[Dilation | Node, ...] = ()
    why: str = ""

    def row_lower(self) -> sp.Expr:
        """First key of the query at position i (before the valid keys are taken into account)."""
        return sp.Max(*(bound.expression for bound in self.lowers)) if self.lowers else KEY_FIRST

    def row_upper(self) -> sp.Expr:
        """One past the last key of the query at position i."""
        return sp.Min(KEY_END, *(bound.expression for bound in self.uppers))


@dataclass(frozen=True)
class Interval:
    """One loop over keys of a tile: [outer_first, outer_end), of which [inner_first, inner_end) needs no mask.

    ``inner_first``/``inner_end`` are None where no key is known to be seen by every query. Lower edges equal as
    expressions mean that the loop begins unmasked.
    """

    outer_first: sp.Expr
    outer_end: sp.Expr
    inner_first: sp.Expr | None
    inner_end: sp.Expr | None
    why: str = ""

    @property
    def always_masked(self) -> bool:
        return self.inner_first is None

    @property
    def left_edge(self) -> bool:
        """Whether the loop may begin with keys that only some queries see."""
        return not self.always_masked and self.inner_first != self.outer_first


def interval_of(term: Term) -> Interval:
    """The loop that serves one term."""
    outer_first = sp.Max(KEY_FIRST, *(bound.least() for bound in term.lowers))
    outer_end = sp.Min(KEY_END, *(bound.greatest() for bound in term.uppers))
    if term.residual:
        return Interval(outer_first, outer_end, None, None, term.why)
    inner_first = sp.Max(KEY_FIRST, *(bound.greatest() for bound in term.lowers))
    inner_end = sp.Min(KEY_END, *(bound.least() for bound in term.uppers))
    return Interval(outer_first, outer_end, inner_first, inner_end, term.why)


def starts_at_first_key(term: Term) -> bool:
    return not term.lowers


def key_intervals(terms: tuple[Term, ...]) -> tuple[Interval, ...]:
    """Few disjoint loops that cover the union of ``terms``, in order of their first key.

    Terms without a lower bound share one loop from the first key. The others begin later and keep a loop each,
    after it, when their order is known; those whose order cannot be proved share the hull of their intervals,
    masked throughout. Loops may overlap as intervals: the kernel starts each where the one before has stopped.
    """
    heads = [interval_of(term) for term in terms if starts_at_first_key(term)]
    bodies = [interval_of(term) for term in terms if not starts_at_first_key(term)]
    loops: list[Interval] = []
    if heads:
        loops.append(_union_from_first_key(heads))
    if len(bodies) > 1:
        bodies = _ordered(bodies) or [hull(bodies)]
    return tuple(loops + bodies)


def _union_from_first_key(intervals: list[Interval]) -> Interval:
    """The union of intervals that all begin at the first valid key."""
    inner_ends = [interval.inner_end for interval in intervals if interval.inner_end is not None]
    return Interval(
        outer_first=KEY_FIRST,
        outer_end=sp.Max(*(interval.outer_end for interval in intervals)),
        inner_first=KEY_FIRST if inner_ends else None,
        inner_end=sp.Max(*inner_ends) if inner_ends else None,
        why=", or ".join(interval.why for interval in intervals if interval.why),
    )


def _ordered(intervals: list[Interval]) -> list[Interval] | None:
    """The intervals by first key, when an order can be proved for every tile; else None."""
    ordered: list[Interval] = []
    rest = list(intervals)
    while rest:
        first = next((a for a in rest if all(_no_later(a.outer_first, b.outer_first) for b in rest)), None)
        if first is None:
            return None
        ordered.append(first)
        rest.remove(first)
    return ordered


def _no_later(a: sp.Expr, b: sp.Expr) -> bool:
    """Whether a <= b for every tile: SymPy proves each part of a maximum below some part of the other."""
    return all(any((y - x).is_nonnegative for y in sp.Max.make_args(b)) for x in sp.Max.make_args(a))


def hull(intervals: list[Interval]) -> Interval:
    """One interval around all; masked throughout where there are several."""
    if len(intervals) == 1:
        return intervals[0]
    return Interval(
        outer_first=sp.Min(*(interval.outer_first for interval in intervals)),
        outer_end=sp.Max(*(interval.outer_end for interval in intervals)),
        inner_first=None,
        inner_end=None,
        why=", or ".join(interval.why for interval in intervals if interval.why),
    )

"""A plan's loops over keys, in words: from which key to which, and where no mask is needed."""

from __future__ import annotations

import sympy as sp

from attngen.plan.forward import ForwardPlan
from attngen.plan.keys import I_FIRST, I_LAST, KEY_END, KEY_FIRST, PREFIX, FloorDiv, Interval

FIRST_KEY, LAST_KEY = "the first key", "the last key"
_NAMES = {I_FIRST: "first", I_LAST: "last", KEY_FIRST: FIRST_KEY, KEY_END: LAST_KEY, PREFIX: "prefix"}


def loops_in_words(plan: ForwardPlan) -> list[str]:
    """One sentence a loop, for a tile of the queries first to last; keys that do not exist are left out of all."""
    return [_sentence(loop) for loop in plan.loops]


def _sentence(loop: Interval) -> str:
    keys = f"{loop.why or 'every key'}: {_stretch(loop.outer_first, loop.outer_end)}"
    if loop.inner_first is None or loop.inner_end is None:
        return f"{keys}; every tile is masked"
    if (loop.inner_first, loop.inner_end) == (loop.outer_first, loop.outer_end):
        return f"{keys}; no mask but where the keys end"
    inner_first = None if loop.inner_first == loop.outer_first else loop.inner_first
    if inner_first is None:
        return f"{keys}; no mask up to {_last(loop.inner_end)}"
    return f"{keys}; no mask from {_text(inner_first)} to {_last(loop.inner_end)}"


def _stretch(first: sp.Expr, end: sp.Expr) -> str:
    if first == KEY_FIRST and end == KEY_END:
        return "all keys"
    return f"keys {_text(first)} to {_last(end)}" if first != KEY_FIRST else f"keys up to {_last(end)}"


def _last(end: sp.Expr) -> str:
    """The key before ``end``."""
    return _text(_before(end))


def _before(e: sp.Expr) -> sp.Expr:
    if isinstance(e, (sp.Max, sp.Min)):
        return e.func(*(_before(part) for part in e.args))
    if isinstance(e, sp.Piecewise):
        return sp.Piecewise(*((_before(value), condition) for value, condition in e.args))
    return e if e == KEY_END else e - 1


def _text(e: sp.Basic) -> str:
    if e in _NAMES:
        return _NAMES[e]
    if isinstance(e, sp.Integer):
        return str(int(e))
    if isinstance(e, (sp.Max, sp.Min)):
        return _extreme(e)
    if isinstance(e, FloorDiv):
        text = _text(e.args[0])
        return f"{f'({text})' if isinstance(e.args[0], sp.Add) else text} // {_text(e.args[1])}"
    if isinstance(e, sp.Piecewise):
        (value, condition), _ = e.args
        return f"{_text(value)} where {_text(condition.lhs)} < {_text(condition.rhs)}"
    if isinstance(e, sp.Mul):
        return " * ".join(_text(part) for part in sorted(e.args, key=lambda part: part.is_Integer))
    if isinstance(e, sp.Add):
        terms = sorted(e.args, key=lambda term: (term.is_Integer, term.could_extract_minus_sign()))
        text = _text(terms[0])
        for term in terms[1:]:
            minus = term.could_extract_minus_sign()
            text += f" {'-' if minus else '+'} {_text(-term if minus else term)}"
        return text
    return str(e)


def _extreme(e: sp.Max | sp.Min) -> str:
    """A maximum or minimum, without the ends of the keys, which bound every loop."""
    parts = sorted((_text(part) for part in e.args if part not in (KEY_FIRST, KEY_END)), key=lambda t: (t.isdigit(), t))
    if len(parts) == 1:
        return parts[0]
    return f"{'max' if isinstance(e, sp.Max) else 'min'}({', '.join(parts)})"

"""SymPy expressions of key bounds, written as Triton."""

from __future__ import annotations

from collections.abc import Mapping

import sympy as sp

from attngen.plan.keys import FloorDiv

_SUM, _PRODUCT, _ATOM = 1, 2, 3


def write(expression: sp.Expr, names: Mapping[str, str] | None = None) -> str:
    """``expression`` as Triton; ``names`` renames its symbols."""
    return _write(expression, names or {})[0]


def _write(e: sp.Basic, names: Mapping[str, str]) -> tuple[str, int]:
    """The text and how tightly it binds."""
    if isinstance(e, sp.Symbol):
        return names.get(e.name, e.name), _ATOM
    if isinstance(e, sp.Integer):
        return str(int(e)), _ATOM if int(e) >= 0 else _SUM
    if isinstance(e, (sp.Max, sp.Min)):
        name = "tl.maximum" if isinstance(e, sp.Max) else "tl.minimum"
        parts = [_write(part, names)[0] for part in sorted(e.args, key=_reading_order)]
        text = parts[0]
        for part in parts[1:]:
            text = f"{name}({text}, {part})"
        return text, _ATOM
    if isinstance(e, FloorDiv):
        return f"floor_div({_write(e.args[0], names)[0]}, {_write(e.args[1], names)[0]})", _ATOM
    if isinstance(e, sp.Piecewise):
        (value, condition), (otherwise, _) = e.args
        return f"tl.where({_condition(condition, names)}, {write(value, names)}, {write(otherwise, names)})", _ATOM
    if isinstance(e, sp.Add):
        return _sum(e, names), _SUM
    if isinstance(e, sp.Mul):
        return " * ".join(_bracketed(part, names, _PRODUCT) for part in e.args), _PRODUCT
    raise TypeError(f"no Triton for {e!r}")


def _sum(e: sp.Add, names: Mapping[str, str]) -> str:
    """Symbols first, then the constant: ``i - 64``, ``10 - i`` only where nothing is positive."""
    terms = sorted(e.args, key=lambda term: (term.is_Integer, term.could_extract_minus_sign(), str(term)))
    if terms[0].could_extract_minus_sign():
        terms = sorted(e.args, key=lambda term: (term.could_extract_minus_sign(), term.is_Integer, str(term)))
    text = _bracketed(terms[0], names, _SUM)
    for term in terms[1:]:
        negative = term.could_extract_minus_sign()
        text += f" {'-' if negative else '+'} {_bracketed(-term if negative else term, names, _PRODUCT)}"
    return text


def _bracketed(e: sp.Basic, names: Mapping[str, str], binding: int) -> str:
    text, own = _write(e, names)
    return text if own >= binding else f"({text})"


def _condition(condition: sp.Basic, names: Mapping[str, str]) -> str:
    if not isinstance(condition, sp.StrictLessThan):
        raise TypeError(f"no Triton for condition {condition!r}")
    return f"{write(condition.lhs, names)} < {write(condition.rhs, names)}"


def _reading_order(e: sp.Basic) -> tuple[int, str]:
    """Plain symbols, then sums, then constants."""
    return (2 if e.is_Integer else 0 if e.is_Symbol else 1, str(e))

"""Key bounds evaluated on numbers: SymPy expressions over NumPy arrays of tiles or rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
import sympy as sp

from attngen.plan.keys import FloorDiv

Values = Mapping[str, Any]  # a symbol's name -> an int or an array of ints


def evaluate(e: sp.Basic, values: Values) -> Any:
    """``e`` with its symbols replaced; arrays broadcast."""
    if isinstance(e, sp.Symbol):
        return values[e.name]
    if isinstance(e, sp.Integer):
        return int(e)
    parts = [evaluate(part, values) for part in e.args] if not isinstance(e, sp.Piecewise) else []
    if isinstance(e, sp.Max):
        return reduce(np.maximum, parts)
    if isinstance(e, sp.Min):
        return reduce(np.minimum, parts)
    if isinstance(e, sp.Add):
        return reduce(np.add, parts)
    if isinstance(e, sp.Mul):
        return reduce(np.multiply, parts)
    if isinstance(e, FloorDiv):
        return np.floor_divide(*parts)
    if isinstance(e, sp.StrictLessThan):
        return np.less(*parts)
    if isinstance(e, sp.Piecewise):
        (value, condition), (otherwise, _) = e.args
        return np.where(evaluate(condition, values), evaluate(value, values), evaluate(otherwise, values))
    raise TypeError(f"cannot evaluate {e!r}")

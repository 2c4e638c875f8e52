"""What kinds are called in Python: names of functions and modules that collide with nothing."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

RESERVED = {"attention", "LAYERS", "select"}  # what the package itself exports, and modules beside an op


def function_names(kinds: Iterable[str], given: Iterable[str] = ()) -> dict[str, str]:
    """A Python name for each kind: its own, or with ``_`` after a keyword and ``_op`` after a name that is taken.

    Names differ by more than case, also from those that were ``given`` before: they are file names too.
    """
    names: dict[str, str] = {}
    for kind in kinds:
        name = f"{kind}_" if keyword.iskeyword(kind) or keyword.issoftkeyword(kind) else kind
        taken = {other.casefold() for other in (*RESERVED, *given, *names.values())}
        while name.casefold() in taken:
            name += "_op"
        names[kind] = name
    return names


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Orders names as linters order imports: without case, numbers by their value."""
    parts = [part for part in re.split(r"(\d+)", name.casefold()) if part]
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def exports_key(name: str) -> tuple:
    """How linters order ``__all__``: constants, classes, the rest."""
    constant = len(name) > 1 and name.isupper()
    return 0 if constant else 1 if name[0].isupper() else 2, natural_key(name)

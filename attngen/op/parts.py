"""Lists and queries that go through a workspace together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """Some lists, counted over all sequences, and some neighbouring queries of each."""

    first_list: int
    lists: int
    first_query: int
    queries: int


def split(lists: int, seq_q: int, together: int, most: int, unit: int) -> list[Part]:
    """Parts of about equal size: up to ``together`` whole lists, or where that is 0, up to ``most`` queries of one, a
    multiple of ``unit``. The first is as large as any."""
    if together:
        equal = -(-lists // -(-lists // together))
        return [Part(n, min(equal, lists - n), 0, seq_q) for n in range(0, lists, equal)]
    most = max(most // unit * unit, unit)
    length = -(-seq_q // -(-seq_q // most) // unit) * unit
    return [Part(n, 1, q, min(length, seq_q - q)) for n in range(lists) for q in range(0, seq_q, length)]

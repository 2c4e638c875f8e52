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


def split(lists: int, seq_q: int, most: int, unit: int) -> list[Part]:
    """Parts of about equal size and at most ``most`` queries of lists, or ``unit`` where that is more: whole lists, or
    part of one, of a multiple of ``unit`` queries. The first is as large as any."""
    if most >= seq_q:
        together = -(-lists // -(-lists // (most // seq_q)))
        return [Part(n, min(together, lists - n), 0, seq_q) for n in range(0, lists, together)]
    most = max(most // unit * unit, unit)
    length = -(-seq_q // -(-seq_q // most) // unit) * unit
    return [Part(n, 1, q, min(length, seq_q - q)) for n in range(lists) for q in range(0, seq_q, length)]

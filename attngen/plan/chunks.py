"""Head dims as the power-of-two pieces that tensor cores take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attngen.problem import next_power_of_two

MIN_WIDTH = 16  # the least reduction length of a matrix product of 16-bit numbers; of 8-bit ones it is twice that


@dataclass(frozen=True)
class Chunk:
    """Columns [start, start + width) of a head; the last columns of the last chunk may be padding."""

    index: int
    start: int
    width: int
    padded: bool


def held_width(chunks: Iterable[Chunk]) -> int:
    """Columns of a head as they are held, padding among them."""
    return sum(chunk.width for chunk in chunks)


def head_dim_chunks(head_dim: int, least: int = MIN_WIDTH) -> tuple[Chunk, ...]:
    """One or two chunks: 128 -> 128; 96 -> 64 + 32; 80 -> 64 + 16; 120 -> 128 with 8 columns of padding.

    ``least`` is the width of the narrowest.
    """
    whole = max(next_power_of_two(head_dim), least)
    first = whole // 2
    second = max(next_power_of_two(max(head_dim - first, 1)), least)
    if head_dim > first >= least and first + second < whole:
        return (Chunk(0, 0, first, False), Chunk(1, first, second, first + second > head_dim))
    return (Chunk(0, 0, whole, whole > head_dim),)

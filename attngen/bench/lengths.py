"""Lengths of packed documents, as those of real texts: most are short, most tokens are in long ones."""

from __future__ import annotations

import math
import random


def log_uniform(tokens: int, shortest: int, longest: int, seed: int = 0) -> tuple[int, ...]:
    """Lengths whose logarithms are drawn evenly, so many that they make up ``tokens``; the last is cut."""
    drawn = random.Random(seed)
    lengths: list[int] = []
    while sum(lengths) < tokens:
        length = round(math.exp(drawn.uniform(math.log(shortest), math.log(longest))))
        lengths.append(min(length, tokens - sum(lengths)))
    return tuple(lengths)

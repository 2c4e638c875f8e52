"""Roles of a program's warps, in kernels that are specialised by warp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """A function that some warps run, and the names of what it takes.

    The first role of a kernel is that of the warps it is launched with; ``registers`` of a thread, by the constant's
    name, are of the others.
    """

    function: str
    arguments: Sequence[str]
    warps: int = 4
    registers: str = "CONSUMER_REGISTERS"


def one_loads(consumer: Sequence[str], consumers: int, producer: Sequence[str]) -> list[Role]:
    """So many warpgroups ``consume``, each by its number, and one warp is to ``produce`` what they take."""
    computing = [Role("consume", [*consumer, str(n)]) for n in range(consumers)]
    return [*computing, Role("produce", producer, 1, "PRODUCER_REGISTERS")]

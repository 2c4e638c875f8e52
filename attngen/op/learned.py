"""Gradients of the arguments that scores read: sums and shares that kernels made, added at the elements they belong to.

Elements are added up by ``index_put_``, which sorts them first: the sums have one order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isqrt

import torch

from attngen.op.gradient_launch import Call, ElementsLauncher, Rows, Strip
from attngen.spec.evaluate import evaluate
from attngen.spec.learned import Learned

# Of shares. What adds up single elements takes ten times that.
STRIP_BYTES = {"distance": 128 * 2**20, "both": 32 * 2**20}


class Positions:
    """Where the queries and keys of a call are, and what its scores' indices may read.

    What is one a head is (batch * heads, 1, 1), counted over all sequences; packed documents are one row of tokens,
    each with the number of its document.
    """

    def __init__(self, call: Call) -> None:
        batch, heads, seq_q, _ = call.q.shape
        given = call.given
        self.seq_q, self.seq_k = seq_q, call.k.shape[2]
        self.heads, self.count = heads, batch * heads
        self.arguments = given
        self.device = call.q.device
        self.ends = tuple(given.get(f"cu_seqlens_{side}") for side in "qk")
        if self.ends[0] is None or self.ends[1] is None:
            default = torch.full((batch,), self.seq_k - self.seq_q, device=self.device)
        else:
            default = self.ends[1].diff() - self.ends[0].diff()
        self.offsets = (default if given["offsets"] is None else given["offsets"]).long()

    def of_heads(self, first: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sequence, head and offset of some heads."""
        places = torch.arange(first, first + count, device=self.device)[:, None, None]
        batch = places // self.heads
        return batch, places % self.heads, self.offsets[batch]

    def names(self, side: int) -> dict[str, torch.Tensor]:
        """b, h and i of each head's queries, or with a side of 1 j of its keys: as (heads, 1, length) or less."""
        batch, head, offset = self.of_heads(0, self.count)
        places = self.range(self.seq_k if side else self.seq_q)
        ends = self.ends[side]
        if ends is not None:  # what is after the last document counts as its own, with sums of 0
            batch = torch.searchsorted(ends[1:-1], places, right=True)
            places, offset = places - ends[batch], self.offsets[batch]
        return {"b": batch, "h": head, **({"j": places} if side else {"i": places + offset})}

    def range(self, count: int) -> torch.Tensor:
        return torch.arange(count, device=self.device)


class Gradient:
    """The gradient of one argument, in float64 until it is done."""

    def __init__(self, argument: torch.Tensor, positions: Positions) -> None:
        self.argument = argument
        self.positions = positions
        self._sum = torch.zeros(argument.shape, dtype=torch.float64, device=argument.device)

    def add(self, read: Learned, names: Mapping[str, torch.Tensor], shares: torch.Tensor) -> None:
        """``shares`` at the elements that ``read`` reads where i, j, h and b are ``names``."""
        places = []
        for index, size in zip(read.read.indices, self.argument.shape, strict=True):
            place = evaluate(index, names, self.positions.arguments).to(self.argument.device)
            places.append(place.clamp(0, size - 1).expand(shares.shape).reshape(-1))
        self._sum.index_put_(tuple(places), shares.double().reshape(-1), accumulate=True)

    def add_rows(self, read: Learned, sums: torch.Tensor) -> None:
        """``sums``: (batch, heads, queries or keys), of a read whose place depends on no position, or on theirs."""
        self.add(read, self.positions.names(side=int(read.along == "key")), sums.reshape(self.positions.count, 1, -1))

    def add_elements(self, read: Learned, launcher: ElementsLauncher, call: Call, rows: Rows) -> None:
        """The shares of a read whose place depends on both positions, or on their distance."""
        at = self.positions
        distance = read.along == "distance"
        for strip in strips(at, launcher.tile("BLOCK_M"), read.along):
            batch, head, offset = at.of_heads(strip.first_head, strip.heads)
            names = {"b": batch, "h": head}
            columns = at.seq_k + strip.queries - 1 if distance else at.seq_k
            shares = launcher(call, rows, read.index, strip, columns)
            first = offset + strip.first_query
            if distance:  # a query of the strip is shifted against the one before it: a column holds one distance
                names |= {"i": first + (strip.queries - 1) - at.range(columns), "j": torch.zeros_like(batch)}
                shares = shares.sum(1, keepdim=True)
            else:
                names |= {"i": first + at.range(strip.queries)[:, None], "j": at.range(columns)}
            self.add(read, names, shares)

    def done(self) -> torch.Tensor:
        return self._sum.to(self.argument.dtype)


def strips(at: Positions, block: int, along: str) -> Iterator[Strip]:
    """All heads and queries in strips of no more bytes than a read may take, or of one tile of one head."""
    elements = STRIP_BYTES[along] // 8  # half for the keys of each query, half for the distances that queries add
    fitting = min(elements // max(at.seq_k, 1), isqrt(elements), at.seq_q)
    queries = max(-(-fitting // block), 1) * block
    heads = max(2 * elements // (queries * (at.seq_k + queries)), 1)
    for first_head in range(0, at.count, heads):
        for first in range(0, at.seq_q, queries):
            yield Strip(first_head, min(heads, at.count - first_head), first, min(queries, at.seq_q - first))

"""Where scores read arguments that may be learned, and what each read adds to their gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attngen.spec.derivative import derivative
from attngen.spec.model import Kind
from attngen.spec.nodes import SCORE, Binary, Call, Name, Node, Tensor, Unary, walk
from attngen.spec.reads import Positions, dependence, reads

SLOPES = "alibi_slopes"


@dataclass(frozen=True)
class Learned:
    """One read: the element that it reads has the gradient of the score, or of the logit before the score's expression,
    times a factor, summed over every place that reads it.

    ``along`` says on which positions the place of that element depends: not at all ("none"), on the query's, the key's,
    their distance, or both.
    """

    index: int  # among the reads of the kind
    read: Tensor
    factor: Node
    of: Literal["score", "logit"]
    along: Positions

    @property
    def argument(self) -> str:
        return self.read.id


def learned_reads(kind: Kind) -> tuple[Learned, ...]:
    """Every read of a score whose gradient is made; a sink's is made apart."""
    found: list[Learned] = []
    if kind.alibi:
        distance = Call("abs", (Binary("-", Name("i"), Name("j")),))
        found.append(Learned(0, Tensor(SLOPES, (Name("h"),)), Unary("-", distance), "logit", "none"))
    if kind.score is not None:
        for read in reads(kind.score.tree):
            if not _by_score(read):
                factor = derivative(kind.score.tree, read)
                found.append(Learned(len(found), read, factor, "score", dependence(read).positions))
    return tuple(found)


def learned_arguments(kind: Kind) -> tuple[str, ...]:
    """Keywords of a call that get a gradient, beside q, k and v."""
    names = ["sink"] if kind.sink else []
    names += [read.argument for read in learned_reads(kind)]
    lost = read_by_score(kind)
    return tuple(name for name in dict.fromkeys(names) if name not in lost)


def read_by_score(kind: Kind) -> tuple[str, ...]:
    """Tensors of which a score reads some element whose place depends on the score itself: it is not known where their
    gradients would go."""
    found = () if kind.score is None else reads(kind.score.tree)
    return tuple(dict.fromkeys(read.id for read in found if _by_score(read)))


def _by_score(read: Tensor) -> bool:
    return any(isinstance(node, Name) and node.id == SCORE for node in walk(read))

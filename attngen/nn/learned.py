"""What the attention of a layer owns besides its projections, and with which values it begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from attngen.errors import CallError, did_you_mean
from attngen.plan.attention import Argument, run_time_arguments
from attngen.spec.learned import SLOPES, learned_arguments
from attngen.spec.model import Kind

SINK = "sink"


@dataclass(frozen=True)
class Owned:
    """A tensor that a module gives its op: a parameter, or a buffer where it is not trained."""

    shape: tuple[int, ...]
    trained: bool
    slopes: bool

    def first_value(self) -> torch.Tensor:
        """ALiBi's own slopes; for everything else zeros."""
        return alibi_slopes(*self.shape) if self.slopes else torch.zeros(self.shape)


def owned(kind: Kind, asked: Mapping[str, Sequence[int]]) -> dict[str, Owned]:
    """Keyword of the kind's op -> what a module owns of it: sinks, slopes, and what is ``asked`` for by its shape.

    CallError for a name that no score reads, or a shape that is not as the spec reads it.
    """
    if not isinstance(asked, Mapping):
        raise CallError(f"learned is a {type(asked).__name__}; names with their shapes are needed: {{'bias': (12, 9)}}")
    arguments = dict(_learnable(kind))
    optional = [keyword for keyword, (_, argument) in arguments.items() if argument.name != SINK]
    for keyword in asked:
        if keyword not in optional:
            remedy = did_you_mean(keyword, optional) if optional else "it has nothing to ask for"
            raise CallError(f"kind '{kind.name}' reads no '{keyword}' that is learned by asking; {remedy}")
    found = {}
    for keyword, (heads, argument) in arguments.items():
        slopes = argument.name == SLOPES
        if keyword in asked:
            found[keyword] = Owned(_fitting(keyword, asked[keyword], heads, argument), True, slopes)
        elif argument.shape == "heads":
            found[keyword] = Owned((heads,), not slopes, slopes)
    return found


def _learnable(kind: Kind) -> Iterator[tuple[str, tuple[int, Argument]]]:
    """Keyword, and heads and argument of the kind or branch, of what a call learns."""
    for one in kind.branches or (kind,):
        prefix = f"{one.name}_" if kind.branches else ""
        names = learned_arguments(one)
        for argument in run_time_arguments(one):
            if argument.name in names:
                yield prefix + argument.name, (one.heads.query, argument)


def _fitting(keyword: str, sizes: Sequence[int], heads: int, argument: Argument) -> tuple[int, ...]:
    """The shape that is asked for, if the spec can read it."""
    whole = isinstance(sizes, Sequence) and all(isinstance(size, int) and size is not True for size in sizes)
    if not whole:
        raise CallError(f"'{keyword}' is asked for with {sizes!r}; its shape, whole numbers, is needed")
    shape = tuple(sizes)
    fits = shape == (heads,) if argument.shape == "heads" else len(shape) == argument.rank and min(shape) > 0
    if not fits:
        needed = f"({heads},)" if argument.shape == "heads" else f"a size for each of {argument.rank} indices"
        raise CallError(f"'{keyword}' is asked for with shape {shape}; {needed} is needed")
    return shape


def alibi_slopes(heads: int) -> torch.Tensor:
    """The slopes of the paper (Press et al., arXiv:2108.12409): 2**(-8/n), its square, its cube and so on for n heads;
    where n is no power of two, those of the next lower one and then every other one of the next higher."""
    lower = 2 ** (heads.bit_length() - 1)
    exponents = [*range(2, 2 * lower + 1, 2), *range(1, 2 * lower, 2)][:heads]
    return torch.tensor([2.0 ** (-4.0 * exponent / lower) for exponent in exponents])

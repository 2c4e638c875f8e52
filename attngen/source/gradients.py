"""What a backward pass does to each element of a tile of scores, as lines of Triton: the score again, its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from attngen.plan.attention import AttentionPlan
from attngen.source import elements
from attngen.source.elementwise import Tile, read_lines
from attngen.spec.derivative import derivative
from attngen.spec.learned import Learned
from attngen.spec.nodes import SCORE, Name, Node, Number, walk

PAD = " " * 4
COLUMNS = {  # of a strip's row, by what a read's place depends on
    "both": "j[None, :]",
    "distance": "(strip_rows - 1 - strip_row[:, None] + j[None, :])",
}
UNWEIGHTED = "what is hidden or has no weight adds nothing, whatever its derivative"


class GradientLines(NamedTuple):
    """``scores`` make s, the logits, of the products of queries and keys; ``products`` make of ds, their gradient, that
    of the scaled products, and on the way what learned arguments take of it."""

    scores: list[str]
    products: list[str]


def gradient_lines(plan: AttentionPlan, tile: Tile, learned: Sequence[Learned] = (), taken: str = "") -> GradientLines:
    """Nothing where only a scale is applied: the exponential takes it, and what is summed is scaled at the end.

    ``taken`` is what becomes of a learned read's share: a format of its number n, its text and its column in a strip,
    and of the mean of what it is made of, which has a weight where the share has ds.
    """
    if plan.plain_scores:
        return GradientLines([], [])
    kind = plan.kind
    reads = elements.Reads()
    scores, capped = _before_expression(plan, tile)
    of_score = [read for read in learned if read.of == "score"]
    slope = None if kind.score is None else derivative(kind.score.tree, Name(SCORE))
    if kind.score is not None:
        text = elements.write(kind.score.tree, tile.names, reads)
        text = text if _reads_score(kind.score.tree) else f"tl.zeros_like(s) + ({text})"
        scores += [f"{PAD}# The spec's score: {kind.score.text}", *read_lines(reads, len(PAD))]
        later = [slope, *(read.factor for read in of_score)]
        scores += [f"{PAD}logit = s"] if any(node is not None and _reads_score(node) for node in later) else []
        scores.append(f"{PAD}s = {text}")
    at_logit = {**tile.names, "s": "logit"}
    products, weight = _shares(of_score, "p", at_logit, reads, taken), "p"
    of_logit = [read for read in learned if read.of == "logit"]
    if slope is not None and not _is_one(slope):
        lines, text = _written(slope, at_logit, reads)
        products += lines
        if of_logit and "{mean}" in taken:
            weight = "rising"
            products.append(f"{PAD}{weight} = tl.where(p > 0, p * ({text}), 0.0)")
        products.append(f"{PAD}ds = tl.where(p > 0, ds * ({text}), 0.0)  # {UNWEIGHTED}")
    products += _shares(of_logit, weight, at_logit, reads, taken)
    return GradientLines(scores, products + capped)


def _before_expression(plan: AttentionPlan, tile: Tile) -> tuple[list[str], list[str]]:
    """The logits up to the score's expression, and the last step back, through the cap."""
    scores, capped = [f"{PAD}s = s * SOFTMAX_SCALE"], []
    if plan.kind.softcap is not None:
        scores = [f"{PAD}capped = SOFTCAP * tanh(s * (SOFTMAX_SCALE / SOFTCAP))", f"{PAD}s = capped"]
        capped = [f"{PAD}ds = ds * (1.0 - capped * capped * (1.0 / (SOFTCAP * SOFTCAP)))"]
    if plan.kind.alibi:
        scores.append(f"{PAD}s = s - slope * tl.abs({tile.distance})  # ALiBi")
    return scores, capped


def _shares(
    learned: Sequence[Learned], weight: str, names: dict[str, str], reads: elements.Reads, taken: str
) -> list[str]:
    """What each learned read takes of ds."""
    out: list[str] = []
    for read in learned:
        share, mean = "ds", weight
        if not _is_one(read.factor):
            lines, text = _written(read.factor, names, reads)
            out += lines
            share, mean = (f"tl.where(p > 0, {x} * ({text}), 0.0)" for x in (share, mean))
        text = taken.format(n=read.index, share=share, mean=mean, column=COLUMNS.get(read.along, ""))
        out += [f"{PAD}{line}" for line in text.splitlines()]
    return out


def _written(node: Node, names: dict[str, str], reads: elements.Reads) -> tuple[list[str], str]:
    """The loads that ``node`` needs and no line before has made, and its text."""
    known = len(reads.calls)
    text = elements.write(node, names, reads)
    new = elements.Reads(dict(list(reads.calls.items())[known:]))
    return read_lines(new, len(PAD)), text


def _reads_score(node: Node) -> bool:
    return any(isinstance(part, Name) and part.id == SCORE for part in walk(node))


def _is_one(node: Node) -> bool:
    return isinstance(node, Number) and node.value == 1

"""From a kind's fields to terms: which keys each field lets a query see."""

from __future__ import annotations

import sympy as sp

from attngen.plan.keys import KEY_END, PREFIX, Bound, Dilation, FloorDiv, I, Term
from attngen.plan.linear import mask_terms
from attngen.spec.model import Kind

FAR = 2**30  # positions are below this, so a window that reaches so far has no end; and i + FAR fits 32 bits


def visibility(kind: Kind) -> tuple[Term, ...]:
    """The union of terms that says which keys a query sees.

    The first terms are the conjunction of causal, window, chunk, dilation and mask (several when the mask is a
    disjunction); then one for each field that adds keys: prefix, always, global_tokens.
    """
    terms = list(_conjunction(kind))
    causal = _causal(kind)
    if kind.prefix is not None:
        end = PREFIX if kind.prefix == "argument" else sp.Integer(kind.prefix)
        terms.append(Term((), (Bound(end),), why="prefix"))
    if kind.always_first:
        terms.append(Term((), (Bound(sp.Integer(kind.always_first)), *causal), why="always-visible first keys"))
    if kind.global_tokens:
        n = sp.Integer(kind.global_tokens)
        everything = Bound(sp.Piecewise((KEY_END, sp.Lt(I, n)), (sp.Integer(0), True)), rising=False)
        terms.append(Term((), (Bound(n), *causal), why="global keys"))
        terms.append(Term((), (everything, *causal), why="global queries"))
    return tuple(terms)


def _causal(kind: Kind) -> tuple[Bound, ...]:
    if not kind.causal:
        return ()
    if kind.compress is None:
        return (Bound(I + 1),)
    size, stride = kind.compress.size, kind.compress.stride  # the last of those it stands for is not after the query
    return (Bound(FloorDiv(I - size + 1, sp.Integer(stride)) + 1),)


def _conjunction(kind: Kind) -> list[Term]:
    """The terms of every field that takes keys away."""
    lowers: list[Bound] = []
    uppers: list[Bound] = list(_causal(kind))
    why = ["causal"] if kind.causal else []
    if kind.window is not None:
        if kind.window.left is not None and kind.window.left < FAR:
            lowers.append(Bound(I - kind.window.left))
        if kind.window.right is not None and kind.window.right < FAR:
            uppers.append(Bound(I + kind.window.right + 1))
        why.append("window")
    if kind.chunk is not None:
        start = FloorDiv(I, sp.Integer(kind.chunk)) * kind.chunk
        lowers.append(Bound(start))
        uppers.append(Bound(start + kind.chunk))
        why.append("chunk")
    residual: tuple[Dilation, ...] = ()
    if kind.dilation is not None and kind.dilation > 1:
        residual = (Dilation(kind.dilation),)
        why.append("dilation")
    if kind.mask is None:
        return [Term(tuple(lowers), tuple(uppers), residual, " and ".join(why) or "every key")]
    why.append("mask")
    return [
        Term(
            (*lowers, *term.lowers),
            (*uppers, *term.uppers),
            (*residual, *term.residual),
            " and ".join(why),
        )
        for term in mask_terms(kind.mask.tree)
    ]

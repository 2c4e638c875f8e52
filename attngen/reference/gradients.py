"""The reference of a backward pass: gradients of attention in float64, by the formulas of its kernels.

As slow as the forward reference, and as sparing of memory: a block of queries of one head at a time.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from attngen.reference.attend import ROWS, in_blocks, positions, scored, seen_by, sequences, usable_keys
from attngen.spec.derivative import derivative
from attngen.spec.evaluate import evaluate
from attngen.spec.learned import SLOPES, Learned, learned_reads
from attngen.spec.model import Kind
from attngen.spec.nodes import SCORE, Name, Node


def gradients(
    kind: Kind,
    dout: torch.Tensor,
    dlse: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    **given: Any,
) -> dict[str, torch.Tensor]:
    """Gradients of ``sum(out * dout) + sum(lse * dlse)``, of ``reference.attention``'s results for the same keywords.

    dout is (batch, heads, seq_q, v dim), dlse (batch, heads, seq_q) or None for zeros; where a row sees no key, its
    dlse is of no account. Returns float64 of the inputs' shapes, by name: q, k, v, and the arguments that a score
    learns (sink, alibi_slopes, tensors of its expression).
    """
    return _backward(kind, dout, dlse, q, k, v, None, {}, **given)


def gradient_sizes(
    kind: Kind,
    dout: torch.Tensor,
    dlse: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    least: float = 0.0,
    rough: float = 0.0,
    **given: Any,
) -> dict[str, torch.Tensor]:
    """What a relative error of every factor may make of each gradient, over that error: sums of sizes.

    ``least`` is added to the weight of every key that is seen: below that, errors are no longer relative; ``rough`` to
    every derivative of a score, for what is lost of 1 - tanh(s) ** 2.
    """
    return _backward(kind, dout, dlse, q, k, v, (least, rough), {}, **given)


def learned_shares(
    kind: Kind,
    dout: torch.Tensor,
    dlse: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    **given: Any,
) -> dict[int, torch.Tensor]:
    """What each pair adds to the gradient of the element that a learned read reads there: (batch, heads, seq_q, seq_k)
    float64 by the read's number, 0 where the key is hidden. For small sizes."""
    shape = (*q.shape[:3], k.shape[2])
    shares = {read.index: torch.zeros(shape, dtype=torch.float64, device=q.device) for read in learned_reads(kind)}
    _backward(kind, dout, dlse, q, k, v, None, shares, **given)
    return shares


def _backward(
    kind: Kind,
    dout: torch.Tensor,
    dlse: torch.Tensor | None,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    sizes: tuple[float, float] | None,
    kept: dict[int, torch.Tensor],
    /,
    *,
    sink: torch.Tensor | None = None,
    alibi_slopes: torch.Tensor | None = None,
    prefix: torch.Tensor | None = None,
    offsets: torch.Tensor | None = None,
    key_range: torch.Tensor | None = None,
    cu_seqlens_q: torch.Tensor | None = None,
    cu_seqlens_k: torch.Tensor | None = None,
    block_count: torch.Tensor | None = None,
    block_index: torch.Tensor | None = None,
    **named: Any,
) -> dict[str, torch.Tensor]:
    """Gradients, or their sizes, for which every factor is its absolute value and differences are sums; the shares of
    the learned reads that are ``kept`` go there too."""
    heads, group = q.shape[1], kind.heads.group
    signed = sizes is None
    least, rough = sizes or (0.0, 0.0)
    learned = learned_reads(kind)
    arguments = {**named, SLOPES: alibi_slopes}
    made = {name: torch.zeros_like(x, dtype=torch.float64) for name, x in (("q", q), ("k", k), ("v", v))}
    made |= {name: torch.zeros_like(arguments[name], dtype=torch.float64) for name in {r.argument for r in learned}}
    if sink is not None:
        made["sink"] = torch.zeros_like(sink, dtype=torch.float64)
    slope = None if kind.score is None else derivative(kind.score.tree, Name(SCORE))

    def factor(x: torch.Tensor) -> torch.Tensor:
        return x if signed else x.abs()

    def times(ds: torch.Tensor, expression: Node, at: dict[str, Any]) -> torch.Tensor:
        """A hidden key adds nothing, whatever an expression gives there."""
        return torch.where(ds == 0, 0.0, ds * (factor(evaluate(expression, at, arguments)) + rough))

    def add(read: Learned, at: dict[str, Any], ds: torch.Tensor) -> None:
        shares = times(ds, read.factor, at)
        if read.index in kept:
            kept[read.index][at_q][:, of_k] = shares
        places = [
            evaluate(index, at, arguments).clamp(0, size - 1).expand(shares.shape)
            for index, size in zip(read.read.indices, made[read.argument].shape, strict=True)
        ]
        made[read.argument].index_put_(tuple(places), shares, accumulate=True)

    for b, row, of_q, of_k in sequences(q, k, cu_seqlens_q, cu_seqlens_k):
        seq_q, seq_k = of_q.stop - of_q.start, of_k.stop - of_k.start
        for h in range(heads if seq_k else 0):
            for start in range(0, seq_q, ROWS):
                rows = slice(start, min(start + ROWS, seq_q))
                at_q = (row, h, slice(of_q.start + rows.start, of_q.start + rows.stop))
                at_k = (row, h // group, of_k)
                i, j = positions(seq_q, seq_k, rows, b, offsets, q.device)
                names = {"i": i, "j": j, "h": h, "b": b}
                valid = usable_keys(j, b, seq_k, key_range).T
                keys, values = (x[at_k].double().masked_fill(~valid, 0.0) for x in (k, v))
                queries, of_out = q[at_q].double(), factor(dout[at_q].double())
                capped, logits, s = _stages(kind, (queries @ keys.T) * kind.scale, names, alibi_slopes, named)
                seen = seen_by(kind, names, seq_k, prefix, key_range, named)
                if block_count is not None:
                    seen &= in_blocks(kind, rows, seq_k, block_count, block_index, b, h)
                s = s.masked_fill(~seen, -math.inf)
                total = torch.logsumexp(s, -1, keepdim=True)
                denominator = total if sink is None else torch.logaddexp(total, sink[h].double())
                hidden = ~seen | (total == -math.inf)
                p = (torch.exp(s - denominator) + least).masked_fill(hidden, 0.0)
                of_weights = of_out @ factor(values).T
                delta = (p * of_weights).sum(-1, keepdim=True)
                ds = p * (of_weights - delta if signed else of_weights + delta)
                if dlse is not None:
                    of_lse = factor(dlse[at_q][:, None].double())
                    ds = ds + torch.exp(s - total).masked_fill(hidden, 0.0) * of_lse
                if sink is not None:
                    share = (delta * torch.exp(sink[h].double() - denominator))[total > -math.inf].sum()
                    made["sink"][h] += -share if signed else share
                made["v"][at_k] += p.T @ of_out
                at = {**names, "s": logits}
                for read in learned:
                    if read.of == "score":
                        add(read, at, ds)
                ds = ds if slope is None else times(ds, slope, at)
                for read in learned:
                    if read.of == "logit":
                        add(read, at, ds)
                if kind.softcap is not None:
                    ds = ds * (1.0 - (capped / kind.softcap) ** 2 + rough)
                made["q"][at_q] = ds @ factor(keys) * kind.scale
                made["k"][at_k] += ds.T @ factor(queries) * kind.scale
    return made


def _stages(
    kind: Kind, s: torch.Tensor, names: dict[str, Any], alibi_slopes: torch.Tensor | None, named: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scaled products after the cap, before the score's expression, and after everything."""
    capped = s if kind.softcap is None else kind.softcap * torch.tanh(s / kind.softcap)
    logits = capped
    if alibi_slopes is not None:
        logits = capped - alibi_slopes[names["h"]].double() * (names["i"] - names["j"]).abs()
    return capped, logits, scored(kind, s, names, alibi_slopes, named)

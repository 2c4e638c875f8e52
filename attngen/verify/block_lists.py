"""What the reference says of lists of blocks: their scores, and what is wrong with a list."""

from __future__ import annotations

import torch

from attngen import reference
from attngen.plan.block_select import BlockSelectPlan


def block_scores(
    plan: BlockSelectPlan, q: torch.Tensor, keys: torch.Tensor, blocks: int, offset: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a sequence's blocks, and how far float32 may be from them: (lists, rows, blocks), float64."""
    kind, compressed, heads = plan.kind, plan.compressed, plan.heads
    rounding = 2.0**-24 * (kind.head_dim.qk + heads + 4)  # of the sum of a product's magnitudes
    each = keys.double().abs().repeat_interleave(kind.heads.group, 1)
    sizes = torch.einsum("bhtd,bhnd->bhtn", q.double().abs(), each)[0].unflatten(0, (-1, heads))
    if compressed is None:
        return reference.mean_scores(kind, q, keys)[0], sizes.sum(1) * rounding
    offsets = torch.tensor([offset], dtype=torch.int32, device=q.device)
    paid = reference.paid_scores(kind, compressed, q, keys, blocks, offsets=offsets)[0]
    # An exponent is off by what its product is, of any one key and head, and by what units of base 2 and lse lose.
    exponent = compressed.scale * sizes.amax((1, 3))[..., None] if keys.shape[2] else 0.0
    return paid, paid * (exponent * rounding + (exponent + 8) * 2.0**-22)


def list_fault(
    plan: BlockSelectPlan,
    scores: torch.Tensor,
    error: torch.Tensor,
    begin: torch.Tensor,
    end: torch.Tensor,
    found: torch.Tensor,
) -> str | None:
    """What is wrong with lists (lists, rows, top_k) of blocks whose scores (lists * rows, blocks) are known to within
    an error; None where they are right but for ties within it."""
    blocks = plan.blocks
    right = reference.select_keys(scores, begin, end, blocks.top_k, first=blocks.first, last=blocks.last)
    found = found.flatten(0, 1)
    place = torch.arange(scores.shape[1], device=scores.device)
    first, last = begin[:, None] + blocks.first, end[:, None] - blocks.last
    inside = (place >= begin[:, None]) & (place < end[:, None])
    always = inside & ((place < first) | (place >= last))
    chosen, wanted = (_chosen(lists, scores.shape[1]) for lists in (found, right))
    if not torch.equal(found, _listed(chosen, blocks.top_k)):
        return "a list is not of different blocks in ascending order, then -1"
    if bool((chosen & ~inside).any()) or bool((always & ~chosen).any()):
        return "a list has blocks that its query may not take, or lacks those that it always takes"
    if not torch.equal(chosen.sum(1), wanted.sum(1)):
        return "a list is longer or shorter than the reference's"
    least = (scores - error).masked_fill(~wanted | always, float("inf")).amin(1, keepdim=True)
    worse = (chosen & ~wanted & (scores + error < least)).sum()
    return f"{int(worse)} blocks score less than the least that belong in their lists" if worse else None


def _chosen(lists: torch.Tensor, blocks: int) -> torch.Tensor:
    """Which of the blocks are in each list: bool (rows, blocks)."""
    chosen = torch.zeros(lists.shape[0], blocks + 1, dtype=torch.bool, device=lists.device)
    known = (lists >= 0) & (lists < blocks)
    return chosen.scatter_(1, lists.long().masked_fill(~known, blocks), True)[:, :blocks]


def _listed(chosen: torch.Tensor, top_k: int) -> torch.Tensor:
    """The blocks that are chosen, in ascending order and then -1: int32 (rows, top_k)."""
    blocks = torch.arange(chosen.shape[1], device=chosen.device).masked_fill(~chosen, chosen.shape[1])
    ordered = torch.nn.functional.pad(blocks.sort(1).values, (0, top_k), value=chosen.shape[1])[:, :top_k]
    return ordered.masked_fill(ordered == chosen.shape[1], -1).int()

"""How many keys one item of an indexer's work has: items that fill the GPU evenly, and not more of them than that."""

from __future__ import annotations

from functools import lru_cache

import torch

UNIT = 512  # keys of an item are a multiple of these: of every tile
MOST_KEYS = 6144  # of an item: programs read the same keys at about the same time, and find them in the L2 cache
LEAST_KEYS = 512  # of an item, where a sequence has more
ITEM_COST = {False: 400, True: 64}  # keys that take as long as beginning an item: a program of its own, or its next
MOST_SHARES = 160  # of a sequence's keys, a few more than a GPU has programs
MOST_SIMULATED = 1 << 14  # items; more of them fill any GPU evenly
MANY_TURNS = 64
MOST_KEPT = 4096  # answers


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@lru_cache(MOST_KEPT)
def keys_per_item(tiles: int, queries: int, batches: int, seq_q: int, seq_k: int, programs: int, lasting: bool) -> int:
    """Keys of an item: ``tiles`` of ``queries`` each for each of ``batches``.

    ``programs`` run at once; a ``lasting`` one goes from item to item. Queries are taken to see all keys up to their
    own, the last query at the last key, which is what costs most to share out evenly.
    """
    whole = ceil_div(max(seq_k, 1), UNIT) * UNIT
    if tiles * batches >= MANY_TURNS * programs:
        return min(whole, MOST_KEYS)
    last = torch.arange(tiles, 0, -1, device="cpu") * queries - 1  # query of each tile, in the order of the items
    ends = (last + (seq_k - seq_q + 1)).clamp_(1, seq_k)
    total = int(ends.sum()) * batches
    best_cost, best = float("inf"), min(whole, MOST_KEYS)
    for keys in _candidates(whole):
        count = ceil_div(seq_k, keys)
        items = tiles * batches * count
        # However evenly they are shared out, so many items take as long as this, and more of them longer.
        if items > MOST_SIMULATED or (total + items * ITEM_COST[lasting]) / programs >= 0.995 * best_cost:
            break
        cost = _longest(ends, batches, keys, count, programs, lasting)
        if cost < 0.995 * best_cost:
            best_cost, best = cost, keys
    return best


def _candidates(whole: int) -> list[int]:
    """Keys of an item, most first: sixteenths of all, so that the last share may be a small one, and equal shares."""
    most = min(whole, MOST_KEYS)
    parts = {ceil_div(whole * n, 16) for n in range(1, 17)} | {ceil_div(whole, n) for n in range(1, MOST_SHARES + 1)}
    rounded = {ceil_div(keys, UNIT) * UNIT for keys in parts}
    return sorted({most} | {keys for keys in rounded if min(LEAST_KEYS, whole) <= keys <= most}, reverse=True)


def _longest(ends: torch.Tensor, batches: int, keys: int, count: int, programs: int, lasting: bool) -> int:
    """Keys of the busiest of ``programs``, and what its items cost to begin."""
    lengths = (
        (ends - torch.arange(0, count * keys, keys, device="cpu")[:, None]).clamp_(0, keys).add_(ITEM_COST[lasting])
    )
    items = len(ends) * batches * count
    turns = ceil_div(items, programs)
    work = torch.zeros(turns * programs, dtype=torch.int64, device="cpu")
    work[:items].view(count, batches, -1).copy_(lengths[:, None])
    by_turn = work.view(turns, programs)
    if lasting:  # forth and back
        return int((by_turn[::2].sum(0) + by_turn[1::2].sum(0).flip(0)).max())
    free = by_turn.new_zeros(programs)  # whoever is free first takes the next: the longest go to those given least
    for row in by_turn:
        free = free.sort().values + row.sort(descending=True).values
    return int(free.max())

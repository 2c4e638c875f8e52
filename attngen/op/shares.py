"""How many keys one item of an indexer's work has: items that fill the GPU evenly, and not more of them than that."""

from __future__ import annotations

import numpy as np

UNIT = 512  # keys of an item are a multiple of these: of every tile
MOST_KEYS = 6144  # of an item: programs read the same keys at about the same time, and find them in the L2 cache
LEAST_KEYS = 512  # of an item, where a sequence has more
ITEM_COST = {False: 400, True: 64}  # keys that take as long as beginning an item: a program of its own, or its next
MOST_SHARES = 160  # of a sequence's keys, a few more than a GPU has programs
MOST_SIMULATED = 1 << 14  # items; more of them fill any GPU evenly
MANY_TURNS = 64


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def keys_per_item(tiles: int, queries: int, batches: int, seq_q: int, seq_k: int, programs: int, lasting: bool) -> int:
    """Keys of an item: ``tiles`` of ``queries`` each for each of ``batches``.

    ``programs`` run at once; a ``lasting`` one goes from item to item. Queries are taken to see all keys up to their
    own, the last query at the last key, which is what costs most to share out evenly.
    """
    whole = ceil_div(max(seq_k, 1), UNIT) * UNIT
    if tiles * batches >= MANY_TURNS * programs:
        return min(whole, MOST_KEYS)
    last = (np.arange(tiles)[::-1] + 1) * queries - 1  # query of each tile, in the order of the items
    ends = np.clip(seq_k - seq_q + last + 1, 1, seq_k)
    best_cost, best = float("inf"), min(whole, MOST_KEYS)
    for keys in _candidates(whole):
        count = ceil_div(seq_k, keys)
        if tiles * batches * count > MOST_SIMULATED:
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


def _longest(ends: np.ndarray, batches: int, keys: int, count: int, programs: int, lasting: bool) -> float:
    """Keys of the busiest of ``programs``, and what its items cost to begin."""
    first = np.arange(count)[:, None] * keys
    lengths = np.clip(ends[None, :] - first, 0, keys)
    work = np.repeat(lengths[:, None, :], batches, axis=1).ravel() + ITEM_COST[lasting]
    turns = ceil_div(work.size, programs)
    padded = np.zeros(turns * programs)
    padded[: work.size] = work
    by_turn = padded.reshape(turns, programs)
    if lasting:  # forth and back
        by_turn[1::2] = by_turn[1::2, ::-1].copy()
        return float(by_turn.sum(0).max())
    free = np.zeros(programs)  # whoever is free first takes the next: the longest go to those that were given least
    for row in by_turn:
        free = np.sort(free) + np.sort(row)[::-1]
    return float(free.max())

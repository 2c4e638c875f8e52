"""Timing on the GPU the way triton.testing.do_bench does: events around each call, the L2 cache cleared before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from attngen.tuner.bench import Timing

CACHE_BYTES = 256 * 2**20  # more than any L2 holds
WARMUP_MS = 15.0
BUDGET_MS = 60.0  # of measured calls for one candidate
MOST_CALLS, LEAST_CALLS = 100, 5
HOPELESS = 1.5  # times the best: the fewest calls tell enough
ROUNDS = 6  # of a race, at least


class Timer:
    """Times calls on the current GPU."""

    def __init__(self) -> None:
        self._cache = torch.empty(CACHE_BYTES, dtype=torch.int8, device="cuda")

    def time(self, call: Callable[[], object], best_ms: float | None = None) -> Timing:
        """The call's time; the fewest calls when the first few are far behind ``best_ms``."""
        first = self._sample(call, 3)
        estimate = self._median(first)
        if best_ms is not None and min(first) > HOPELESS * best_ms:
            return summary(self._sample(call, LEAST_CALLS))
        self._sample(call, _calls(WARMUP_MS, estimate, least=1))
        return summary(self._sample(call, _calls(BUDGET_MS, estimate, least=LEAST_CALLS)))

    def race(self, calls: Sequence[Callable[[], object]]) -> list[Timing]:
        """Times of several calls taken in turns, each after every other as often: at the power limit of a GPU, a call
        is slower after one that drew more."""
        counts = [_calls(BUDGET_MS, self._median(self._sample(call, 3)), least=LEAST_CALLS) for call in calls]
        times: list[list[float]] = [[] for _ in calls]
        rounds = balanced_rounds(len(calls))
        for order in rounds * -(-ROUNDS // len(rounds)):
            for n in order:
                times[n] += self._sample(calls[n], max(LEAST_CALLS, counts[n] // 2))
        return [summary(sample) for sample in times]

    def _sample(self, call: Callable[[], object], count: int) -> list[float]:
        events = []
        for _ in range(count):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            self._cache.zero_()  # also gives the host time to get ahead of the GPU
            start.record()
            call()
            end.record()
            events.append((start, end))
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in events]

    @staticmethod
    def _median(times: Sequence[float]) -> float:
        return summary(times).median_ms


def balanced_rounds(count: int) -> list[list[int]]:
    """Orders of so many, in which each is at every place, and right after every other, as often (Williams 1949,
    "Experimental designs balanced for the estimation of residual effects of treatments")."""
    steps = [n // 2 if n % 2 == 0 else count - 1 - n // 2 for n in range(count)]
    orders = [[(first + step) % count for step in steps] for first in range(count)]
    return orders if count % 2 == 0 else orders + [order[::-1] for order in orders]


def _calls(budget_ms: float, each_ms: float, least: int) -> int:
    return max(least, min(MOST_CALLS, int(budget_ms / max(each_ms, 1e-3))))


def summary(times: Sequence[float]) -> Timing:
    """Median and spread of measured times."""
    ordered = sorted(times)

    def quantile(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    return Timing(quantile(0.5), quantile(0.8) - quantile(0.2), len(ordered))

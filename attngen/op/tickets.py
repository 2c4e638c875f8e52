"""Counters from which the programs of a persistent launch draw their next tile of queries."""

from __future__ import annotations

import torch


class Tickets:
    """One counter a stream: a launch leaves it at 0 for the next, and launches of one stream do not overlap."""

    def __init__(self) -> None:
        self._counters: dict[tuple[int, int], torch.Tensor] = {}

    def of(self, device: torch.device, stream: int) -> torch.Tensor:
        """The counter for a launch on ``stream``, which is the current one.

        A graph may be replayed on any stream, beside others: what is captured brings its own and clears it.
        """
        if torch.cuda.is_current_stream_capturing():
            return torch.zeros(1, dtype=torch.int32, device=device)
        key = (device.index, stream)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = torch.zeros(1, dtype=torch.int32, device=device)
        return counter

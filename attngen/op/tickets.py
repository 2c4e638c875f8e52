"""What programs of a persistent launch draw their next tile of queries from, and where they note how a tile went."""

from __future__ import annotations

import torch

from attngen.plan.hopper import VISITS


class Tickets:
    """One tensor a stream: a launch leaves it at 0 for the next, and launches of one stream do not overlap."""

    def __init__(self) -> None:
        self._counters: dict[tuple[int, int], torch.Tensor] = {}

    def of(self, device: torch.device, stream: int) -> torch.Tensor:
        """The counter and the notes for a launch on ``stream``, which is the current one.

        A graph may be replayed on any stream, beside others: what is captured brings its own and clears it.
        """
        if torch.cuda.is_current_stream_capturing():
            return _zeros(device)
        key = (device.index, stream)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = _zeros(device)
        return counter


def _zeros(device: torch.device) -> torch.Tensor:
    """One counter, and notes of each program that an SM holds."""
    programs = torch.cuda.get_device_properties(device).multi_processor_count
    return torch.zeros(1 + VISITS * programs, dtype=torch.int32, device=device)

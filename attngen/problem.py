"""A problem: one kernel at one set of sizes, which is what a tuning belongs to."""

from __future__ import annotations

from dataclasses import dataclass, replace


def next_power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


@dataclass(frozen=True)
class Problem:
    """``kernel`` of the kind with ``digest`` at batch x seq_q x seq_k."""

    kernel: str
    digest: str
    batch: int
    seq_q: int
    seq_k: int

    def bucket(self) -> Problem:
        """The shape bucket that shares one tuning: every size rounded up to a power of two."""
        return replace(
            self,
            batch=next_power_of_two(self.batch),
            seq_q=next_power_of_two(self.seq_q),
            seq_k=next_power_of_two(self.seq_k),
        )

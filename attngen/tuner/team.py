"""The processes of a tuner: some that compile, one that measures. Kept between problems, since starting is slow."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

from attngen.tuner.workers import Worker

MOST_COMPILERS = 16


def default_workers() -> int:
    """As many compilers as this process has cores, within reason."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_COMPILERS, cores))


class Team:
    """``with Team(workers) as team``: ends every process on the way out."""

    def __init__(self, workers: int | None = None) -> None:
        self.compilers = [Worker() for _ in range(workers or default_workers())]
        self.measurer = Worker()

    @property
    def workers(self) -> list[Worker]:
        return [*self.compilers, self.measurer]

    def assign(self, bench: Any) -> None:
        """Work on another bench from here on."""
        for worker in self.workers:
            worker.assign(bench)

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

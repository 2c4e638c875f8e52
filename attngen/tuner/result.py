"""What a tuning run came to, and what it reports on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from attngen.database import Trial
from attngen.problem import Problem

Reason = Literal["trials", "minutes", "exhausted"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    tried: int  # by this run
    known: int  # by earlier runs
    total: int | None  # that this run will try at most, where trials or the space bound it
    failed: int
    best: Trial | None
    seconds: float
    limit_seconds: float | None
    doing: str = ""


@dataclass(frozen=True)
class TuningResult:
    """The outcome of one run. ``best`` may come from an earlier run that this one took up."""

    problem: Problem
    target: str
    source: str  # "measured" or "model"
    best: Trial | None
    default: Trial | None  # how the default config did
    finalists: tuple[Trial, ...]
    tried: int  # new trials of this run
    known: int  # trials of earlier runs, taken up
    failures: tuple[tuple[str, int], ...]  # statuses other than ok among the new ones, with counts
    space: int  # feasible configs
    stopped: Reason
    seconds: float
    study: str

    @property
    def speedup(self) -> float | None:
        """How many times as fast as the default config."""
        if self.best is None or self.default is None or not self.best.median_ms or not self.default.median_ms:
            return None
        return self.default.median_ms / self.best.median_ms

    def summary(self) -> str:
        """One line."""
        if self.best is None:
            return f"no config worked: {self.tried} tried on {self.target}"
        gain = f", {self.speedup:.2f} times the default" if self.speedup else ""
        word = "measured" if self.source == "measured" else "by the cost model"
        return (
            f"{self.best.median_ms:.4g} ms {word} on {self.target}{gain}: {self.best.config.label()} "
            f"({self.tried} tried, {self.known} known before, of {self.space})"
        )


Reporter = Callable[[Progress], None]

"""What a tuner needs to know of the thing it tunes; the real one is in kernel.py, tests have others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from attngen.config import Config

if TYPE_CHECKING:
    from attngen.database import Status


@dataclass(frozen=True)
class Compiled:
    """What the compiler reports of one config."""

    registers: int
    spills: int
    shared: int
    seconds: float


@dataclass(frozen=True)
class Timing:
    """Times of repeated calls, in milliseconds."""

    median_ms: float
    spread_ms: float  # between the 20th and the 80th percentile
    samples: int


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel as the database keeps it."""

    source: str  # digest of the generated text
    key: str  # Triton's
    files: dict[str, bytes]


@dataclass(frozen=True)
class Reply:
    """The answer to one request: a value, or what went wrong."""

    value: Any = None
    status: str = ""  # "" is success; else a Failure's status, or "error"
    message: str = ""
    leaving: bool = False  # the process is not fit to go on


class Failure(Exception):
    """A config that cannot be used, and why; becomes a row of the database."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(status, message)
        self.status: Status = status
        self.message = message


class Bench(Protocol):
    """Travels by pickle to the processes that compile and to the one that measures.

    ``compile`` runs where there need be no GPU. The others run in the process that owns the GPU, after ``prepare``.
    """

    def compile(self, config: Config) -> Compiled:
        """Compile; Failure when it cannot be, or needs more than there is."""

    def prepare(self) -> None:
        """Make inputs and the reference's answers, once in the life of a process."""

    def measure(self, config: Config, best_ms: float | None) -> Timing:
        """Check a config's answers, then time it; less exactly when it is far behind ``best_ms``."""

    def race(self, configs: list[Config]) -> list[Timing]:
        """Time several configs in turns, so that they share whatever the GPU goes through."""

    def kernels(self, config: Config) -> list[Kernel]:
        """What is compiled of a config that was measured, so that it need not be compiled again."""

    def healthy(self) -> bool:
        """Whether the process can go on after an error."""

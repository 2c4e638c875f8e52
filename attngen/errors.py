"""The errors attngen raises on purpose: each one line, saying what is wrong and what would be right."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class AttngenError(Exception):
    """Base of every error of ours; the command line prints it as one line."""


class SpecError(AttngenError):
    """A spec that cannot be accepted, with the place in the file: ``file:line:column: problem; remedy``."""

    def __init__(self, file: str, line: int, column: int, problem: str, remedy: str = "") -> None:
        super().__init__(file, line, column, problem, remedy)  # all of them, so that the error pickles
        self.file = file
        self.line = line
        self.column = column
        self.problem = one_line(problem)
        self.remedy = one_line(remedy)

    def __str__(self) -> str:
        message = f"{self.problem}; {self.remedy}" if self.remedy else self.problem
        return f"{one_line(self.file)}:{self.line}:{self.column}: {message}"


class CallError(AttngenError, ValueError):
    """An op called with arguments that its spec does not allow."""


class NotGeneratedError(AttngenError):
    """A valid spec asks for a kernel that this version does not generate yet."""


class UsageError(AttngenError):
    """Input on the command line, other than a spec, that cannot be used."""


def one_line(text: str) -> str:
    """``text`` with every run of whitespace and control characters made one space."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """A remedy for an unknown name: the nearest allowed one, or all of them when none is near."""
    allowed = list(allowed)
    by_lower = {candidate.lower(): candidate for candidate in allowed}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean '{by_lower[near[0]]}'?" if near else f"{one_of(allowed)} would be right"


def one_of(names: Iterable[str]) -> str:
    """``a, b or c``."""
    *first, last = list(names)
    return f"{', '.join(first)} or {last}" if first else last

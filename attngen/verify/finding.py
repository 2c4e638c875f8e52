"""What came of one kernel at one size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from attngen.errors import one_line

MOST_TEXT = 300  # characters of a compiler's message


@dataclass(frozen=True)
class Finding:
    """What came of one kernel at one size. ``error`` is relative L2, or the worst element's share of its bound."""

    kind: str
    case: str
    config: str
    status: Literal["ok", "failed", "skipped"] = "ok"
    error: float = 0.0
    allowed: float = 0.0
    lse_error: float = 0.0
    lse_allowed: float = 0.0
    fault: str = ""

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def failed(finding: Finding, fault: str) -> Finding:
    return replace(finding, status="failed", fault=one_line(fault)[:MOST_TEXT])

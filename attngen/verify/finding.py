"""What came of one kernel at one size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from attngen.errors import one_line

MOST_TEXT = 300  # characters of a compiler's message


@dataclass(frozen=True)
class Finding:
    """What came of one kernel at one size. ``error`` is relative L2, or the worst element's share of its bound; of what
    must be equal, the number of rows that are not."""

    kind: str
    case: str
    config: str
    kernel: str = "forward"
    status: Literal["ok", "failed", "skipped"] = "ok"
    error: float = 0.0
    allowed: float = 0.0
    lse_error: float = 0.0
    lse_allowed: float = 0.0
    fault: str = ""

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    @property
    def title(self) -> str:
        """The kind, and which of its kernels where it has several."""
        return self.kind if self.kernel == "forward" else f"{self.kind} {self.kernel}"


def failed(finding: Finding, fault: str) -> Finding:
    return replace(finding, status="failed", fault=one_line(fault)[:MOST_TEXT])

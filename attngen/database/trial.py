"""A trial: one config tried on one problem and GPU, and everything that was learned from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Literal, get_args

from attngen.config import Config
from attngen.database.versions import Versions
from attngen.errors import one_line
from attngen.problem import Problem

Status = Literal["ok", "wrong", "compile_error", "spilled", "too_large", "timeout", "crashed", "skipped"]
Origin = Literal["measured", "model"]
STATUSES: tuple[str, ...] = get_args(Status)
ORIGINS: tuple[str, ...] = get_args(Origin)
LONGEST_TEXT = 2000
_TEXTS = ("error", "spec", "kind", "description", "device", "template", "study")


def now() -> datetime:
    """This moment in UTC, to the second, which is what a trial keeps."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def rounded(value: float | None) -> float | None:
    """Six significant digits: more than any timing has, and equal after a trip through text."""
    return None if value is None else float(f"{value:.6g}")


@dataclass(frozen=True)
class Trial:
    """One row of the database. Only ``ok`` trials have a time, and only they are ever chosen from."""

    problem: Problem
    target: str
    config: Config
    status: Status
    source: Origin = "measured"
    median_ms: float | None = None
    spread_ms: float | None = None  # between the 20th and the 80th percentile
    samples: int | None = None
    final: bool = False  # measured again beside its rivals, so its time is to be trusted over a first one
    registers: int | None = None  # a thread
    spills: int | None = None  # bytes a thread
    shared: int | None = None  # bytes a program
    compile_seconds: float | None = None
    error: str = ""
    spec: str = ""
    kind: str = ""
    description: str = ""  # the kind and the sizes, for people
    device: str = ""  # torch.cuda.get_device_name()
    template: str = ""  # digest of the templates that made the code
    versions: Versions = field(default_factory=Versions)
    study: str = ""  # the tuning run it came from
    created: datetime = field(default_factory=now)

    def __post_init__(self) -> None:
        for name in ("median_ms", "spread_ms", "compile_seconds"):
            object.__setattr__(self, name, rounded(getattr(self, name)))
        for name in _TEXTS:  # a compiler's message is many lines; what is kept is one, and printable
            object.__setattr__(self, name, one_line(getattr(self, name)[: 4 * LONGEST_TEXT])[:LONGEST_TEXT])

    def replace(self, **changes: Any) -> Trial:
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, in the order in which text files have them; what is unknown is left out."""
        values: dict[str, Any] = {
            "spec": self.spec,
            "kind": self.kind,
            "kernel": self.problem.kernel,
            "digest": self.problem.digest,
            "batch": self.problem.batch,
            "seq_q": self.problem.seq_q,
            "seq_k": self.problem.seq_k,
            "description": self.description,
            "config": self.config.as_dict(),
            "status": self.status,
            "source": self.source,
            "median_ms": self.median_ms,
            "spread_ms": self.spread_ms,
            "samples": self.samples,
            "final": self.final or None,
            "registers": self.registers,
            "spills": self.spills,
            "shared": self.shared,
            "compile_seconds": self.compile_seconds,
            "error": self.error,
            "device": self.device,
            "template": self.template,
            "versions": self.versions.as_dict() or None,
            "study": self.study,
            "created": self.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return {name: value for name, value in values.items() if value is not None and value != ""}

    def fingerprint(self) -> str:
        """Names this trial among all databases, so that importing or merging it twice adds it once."""
        text = json.dumps([self.target, self.as_dict()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Choice:
    """A config that the database proposes for a problem, and where it comes from, in words."""

    config: Config
    provenance: str
    trial: Trial
    step: Literal["exact", "nearest length", "nearest GPU"]
    shipped: bool  # from the package's tuning_db/ rather than the user's database

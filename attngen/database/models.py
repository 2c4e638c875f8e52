"""The table of trials, as SQLAlchemy sees it; nothing outside this folder needs it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import JSON, DateTime, Index, LargeBinary, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from attngen.config import Config
from attngen.database.checks import checked_config
from attngen.database.trial import Trial
from attngen.database.versions import Versions
from attngen.problem import Problem

SCHEMA_VERSION = 1


class Base(DeclarativeBase):
    """Our tables."""


class Meta(Base):
    """What the database says about itself: the version of its tables."""

    __tablename__ = "attngen_meta"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[str] = mapped_column(String(200))


class TrialRow(Base):
    """One trial; see Trial for what the columns mean."""

    __tablename__ = "trials"
    __table_args__ = (Index("trials_by_problem", "kernel", "digest", "target", "seq_k", "seq_q", "batch"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(32), unique=True)
    kernel: Mapped[str] = mapped_column(String(40))
    digest: Mapped[str] = mapped_column(String(40))
    batch: Mapped[int]
    seq_q: Mapped[int]
    seq_k: Mapped[int]
    target: Mapped[str] = mapped_column(String(80), index=True)
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(String(20))
    source: Mapped[str] = mapped_column(String(20))
    median_ms: Mapped[float | None]
    spread_ms: Mapped[float | None]
    samples: Mapped[int | None]
    final: Mapped[bool]
    registers: Mapped[int | None]
    spills: Mapped[int | None]
    shared: Mapped[int | None]
    compile_seconds: Mapped[float | None]
    error: Mapped[str] = mapped_column(Text)
    spec: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(Text)
    device: Mapped[str] = mapped_column(String(200))
    template: Mapped[str] = mapped_column(String(40))
    attngen: Mapped[str] = mapped_column(String(80))
    triton: Mapped[str] = mapped_column(String(80))
    torch: Mapped[str] = mapped_column(String(80))
    cuda: Mapped[str] = mapped_column(String(80))
    driver: Mapped[str] = mapped_column(String(80))
    study: Mapped[str] = mapped_column(String(200), index=True)
    created: Mapped[datetime] = mapped_column(DateTime)  # UTC


class KernelRow(Base):
    """A tuning's winner as it was compiled, so that its first call need not compile it; never exported or merged."""

    __tablename__ = "kernels"

    source: Mapped[str] = mapped_column(String(64), primary_key=True)  # digest of the generated text
    key: Mapped[str] = mapped_column(String(64), primary_key=True)  # Triton's: of source, arguments, GPU and versions
    files: Mapped[bytes] = mapped_column(LargeBinary)  # a zip of what Triton keeps of it


_ELSEWHERE = {"problem", "config", "versions", "created"}  # the others are columns as they are
_SAME = tuple(name for name in Trial.__dataclass_fields__ if name not in _ELSEWHERE)
_VERSIONS = tuple(Versions.__dataclass_fields__)


def to_row(trial: Trial) -> dict[str, Any]:
    """A trial as values for an INSERT."""
    row: dict[str, Any] = {name: getattr(trial, name) for name in _SAME}
    row.update({name: getattr(trial.versions, name) for name in _VERSIONS})
    row.update({name: getattr(trial.problem, name) for name in ("kernel", "digest", "batch", "seq_q", "seq_k")})
    row["config"] = checked_config(trial.config)
    row["created"] = trial.created.astimezone(timezone.utc).replace(tzinfo=None)
    row["fingerprint"] = trial.fingerprint()
    return row


def from_row(row: Any) -> Trial:
    """A trial from a row of a SELECT over every column."""
    return Trial(
        problem=Problem(row.kernel, row.digest, row.batch, row.seq_q, row.seq_k),
        config=Config.from_dict(checked_config(row.config)),
        versions=Versions(**{name: getattr(row, name) for name in _VERSIONS}),
        created=row.created.replace(tzinfo=timezone.utc),
        **{name: getattr(row, name) for name in _SAME},
    )

"""Trials and problems that the database tests share."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from attngen.config import Config
from attngen.database import Trial, Versions
from attngen.problem import Problem

START = datetime(2026, 1, 31, 12, 0, 0, tzinfo=timezone.utc)
DIGEST = "0123456789ab"


def problem(seq=8192, batch=8, seq_q=None, digest=DIGEST):
    return Problem("forward", digest, batch, seq if seq_q is None else seq_q, seq)


def trial(ms=0.5, target="h100", at=None, age=0, **changes):
    """A trial that took ``ms``; each of its own config unless one is given."""
    values = dict(
        problem=at or problem(),
        target=target,
        config=Config(schedule="portable", BLOCK_M=128, BLOCK_N=64, tag=f"ms{ms}"),
        status="ok",
        median_ms=ms,
        spread_ms=0.01,
        samples=100,
        registers=168,
        spills=0,
        shared=98304,
        spec="modernbert-base",
        kind="local",
        description="local: |i - j| <= 64; batch 8, 8192 x 8192",
        device="NVIDIA H100 80GB HBM3",
        template="fedcba98",
        versions=Versions(attngen="0.1", triton="3.6.0", torch="2.11.0"),
        study="s1",
        created=START - timedelta(hours=age),
    )
    return Trial(**{**values, **changes})

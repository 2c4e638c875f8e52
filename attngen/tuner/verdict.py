"""What the compiler's report and a worker's reply say of a candidate, as the status of its row."""

from __future__ import annotations

from typing import cast

from attngen.config import Config
from attngen.database import Status
from attngen.database.trial import STATUSES
from attngen.plan.boxes import is_gluon
from attngen.target import Target
from attngen.tuner.bench import Compiled, Reply

MOST_SPILLS = 512  # bytes a thread, stores and loads; a few buy a program more an SM
MOST_SPILLS_OUTSIDE = 600  # where roles have registers of their own, and spill before and after their loops alone
# Kernels that may spill more: where a row seldom comes, or a tile that is read again and again costs more.
MOST_SPILLS_OF = {"select": 1024, "backward_kv": 1600}


def judge(config: Config, compiled: Compiled, target: Target, kernel: str = "forward") -> tuple[Status, str]:
    """``ok`` where there is hope, else why a config is not worth launching."""
    if reason := target.why_too_large(compiled.shared):
        return "too_large", reason
    registers = compiled.registers * int(config.get("num_warps") or 1) * target.warp_size
    if registers > target.registers_per_sm:
        return "too_large", f"{registers} registers; an SM of {target.name} has {target.registers_per_sm}"
    most = max(MOST_SPILLS_OUTSIDE if is_gluon(config) else MOST_SPILLS, MOST_SPILLS_OF.get(kernel, 0))
    if compiled.spills > most:
        return "spilled", f"{compiled.spills} bytes a thread; at most {most} are tried"
    return "ok", ""


def status_of(reply: Reply, otherwise: Status) -> Status:
    """A failed request's status; a death or an unforeseen error counts as ``otherwise``."""
    known = reply.status in STATUSES and reply.status != "crashed"
    return cast(Status, reply.status) if known else otherwise

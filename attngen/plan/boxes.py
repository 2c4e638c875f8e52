"""The boxes in which the copy engine moves a kernel's tensors."""

from __future__ import annotations

from attngen.config import Config
from attngen.plan.forward import ForwardPlan

Box = tuple[int, int, int, int]  # batch, heads, sequence, columns; of turned values columns, sequence
KEYS_TURNED = 16  # keys of a group of turned values: a warp's products of 8-bit weights take them in another order


def boxes(plan: ForwardPlan, config: Config) -> dict[str, tuple[str, Box]]:
    """For each descriptor parameter of the kernel: the tensor (q, k, v, out or turned) and the box."""
    block_n = int(config["BLOCK_N"] or 0)
    out: dict[str, tuple[str, Box]] = {}
    if is_gluon(config):
        heads, queries = query_box(plan, config)
        for tensor, chunks in (("q", plan.qk_chunks), ("out", plan.v_chunks)):
            out |= {f"{tensor}_desc_{c.index}": (tensor, (1, heads, queries, c.width)) for c in chunks}
    if is_gluon(config) or config.get("loads") == "descriptor":
        for tensor, chunks in (("k", plan.qk_chunks), ("v", plan.v_chunks)):
            out |= {f"{tensor}_desc_{c.index}": (tensor, (1, 1, block_n, c.width)) for c in chunks}
    if is_turned(plan, config):
        out |= {f"v_desc_{c.index}": ("turned", (1, 1, c.width, block_n)) for c in plan.v_chunks}
    return out


def is_gluon(config: Config) -> bool:
    """Whether the schedule is written in Gluon, for Hopper alone."""
    return str(config.get("schedule")).startswith("hopper")


def is_turned(plan: ForwardPlan, config: Config) -> bool:
    """Whether values are turned before the kernel runs: products of 8-bit numbers on Hopper want keys side by side."""
    return plan.kind.quantised and is_gluon(config)


def query_box(plan: ForwardPlan, config: Config) -> tuple[int, int]:
    """Heads and queries of the box that one warpgroup loads."""
    pack = int(config.get("PACK_HEADS") or 1)
    return pack, 64 // pack


def swizzle_bytes(width: int, element_bytes: int) -> int:
    """The widest swizzle of shared memory that a row of so many columns fills."""
    return max(n for n in (0, 32, 64, 128) if n <= width * element_bytes)

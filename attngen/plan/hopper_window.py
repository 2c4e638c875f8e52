"""The Hopper window schedule's shape: which keys are resident, who computes what, what needs a mask, what fits."""

from __future__ import annotations

from dataclasses import dataclass

from attngen.config import Config
from attngen.plan.chunks import held_width
from attngen.plan.forward import ForwardPlan
from attngen.plan.hopper import BARRIER_BYTES, MOST_SHARED, ROWS
from attngen.plan.keys import I
from attngen.plan.work import ELEMENT_BYTES

OTHER_REGISTERS = 48  # of a thread, beside scores and accumulators
MOST_REGISTERS = 240  # of a thread
MOST_KEYS = 320  # that one warpgroup sees: their scores are in registers at once


@dataclass(frozen=True)
class WindowTile:
    """A resident tile as one warpgroup sees it: whether some query sees only the keys from (up to) one of its own."""

    cut_before: bool
    cut_after: bool


@dataclass(frozen=True)
class HopperWindowShape:
    """What a config of the ``hopper_window`` schedule comes to for a plan with a bounded window.

    A warpgroup has ROWS rows at a time: ``queries`` queries of ``pack`` heads. Warpgroups of a program take different
    heads of the group, or neighbouring queries.
    """

    warpgroups: int
    across_heads: bool
    pack: int
    block_n: int
    turns: int  # of a warpgroup, one after the other: the heads of its group
    buffers: int  # of a warpgroup, for queries and results
    lead: int  # keys from the first resident one to the first query's own position
    tiles: tuple[WindowTile, ...]  # that one warpgroup sees
    separate_out: bool  # results have a place of their own in shared memory

    @classmethod
    def of(cls, plan: ForwardPlan, config: Config) -> HopperWindowShape:
        assert plan.span is not None
        pack, block_n = int(config.get("PACK_HEADS") or 1), int(config["BLOCK_N"] or 0)
        warpgroups = int(config.get("WARPGROUPS") or 1)
        passes = plan.kind.heads.group // pack
        across_heads = warpgroups == 1 or (passes % warpgroups == 0 and config.get("ACROSS") != "queries")
        turns = passes // warpgroups if across_heads else passes
        lead, tiles = resident_tiles(plan.span, ROWS // pack, block_n)
        widths = ([c.width for c in plan.qk_chunks], [c.width for c in plan.v_chunks])
        return cls(
            warpgroups=warpgroups,
            across_heads=across_heads,
            pack=pack,
            block_n=block_n,
            turns=turns,
            buffers=min(turns, int(config["num_stages"] or 2)),
            lead=lead,
            tiles=tiles if static_edges(plan) else tuple(WindowTile(True, True) for _ in tiles),
            separate_out=widths[1] != widths[0][: len(widths[1])],
        )

    @property
    def queries(self) -> int:
        """Queries of a warpgroup."""
        return ROWS // self.pack

    @property
    def block_q(self) -> int:
        """Queries of a program."""
        return self.queries if self.across_heads else self.queries * self.warpgroups

    @property
    def resident(self) -> int:
        """Key tiles in shared memory."""
        return len(self.tiles) + (self.block_q - self.queries) // self.block_n

    def programs(self, batch: int, kv_heads: int, seq_q: int) -> int:
        return -(-seq_q // self.block_q) * batch * kv_heads

    def shared_bytes(self, plan: ForwardPlan) -> int:
        qk, v = held_width(plan.qk_chunks), held_width(plan.v_chunks)
        rows = self.warpgroups * self.buffers * ROWS * (qk + (v if self.separate_out else 0))
        return (rows + self.resident * self.block_n * (qk + v)) * ELEMENT_BYTES[plan.kind.dtype] + BARRIER_BYTES

    def registers(self, plan: ForwardPlan) -> int:
        """Of a thread, about: scores of every key first, then weights of half their size beside the accumulators."""
        scores = len(self.tiles) * self.block_n * ROWS // 128
        values = held_width(plan.v_chunks) * ROWS // 128
        return max(scores, scores // 2 + values) + OTHER_REGISTERS


def static_edges(plan: ForwardPlan) -> bool:
    """Whether a query at i sees all valid keys of [i - left, i + right]: then masks do not depend on the tile."""
    term = plan.terms[0]
    edges = [bound.expression - I for bound in (*term.lowers, *term.uppers)]
    return not term.residual and all(edge.is_Integer for edge in edges)


def resident_tiles(span: tuple[int, int], queries: int, block_n: int) -> tuple[int, tuple[WindowTile, ...]]:
    """The tiles that cover what ``queries`` neighbouring queries see, and how far before them the first begins.

    Spare keys go to the side where they save a mask: query r sees keys [r + spare, r + spare + left + right] of the
    tiles' keys, numbered from 0.
    """
    left, right = span
    count = max(-(-(left + right + queries) // block_n), 1)
    choices = []
    for spare in range(max(count * block_n - (left + right + queries), 0) + 1):
        tiles = tuple(
            WindowTile(
                cut_before=t * block_n < queries - 1 + spare,
                cut_after=(t + 1) * block_n - 1 > spare + left + right,
            )
            for t in range(count)
        )
        choices.append((sum(tile.cut_before + tile.cut_after for tile in tiles), spare, tiles))
    _, spare, tiles = min(choices, key=lambda choice: choice[:2])
    return left + spare, tiles


def why_not(plan: ForwardPlan, config: Config) -> str | None:
    """None when ``config`` of the ``hopper_window`` schedule fits ``plan``, else why it does not."""
    for rule in (_pattern, _rows, _memory):
        if reason := rule(plan, config):
            return reason
    return None


def _pattern(plan: ForwardPlan, config: Config) -> str | None:
    if plan.span is None:
        return "the window schedule needs a bounded window and nothing beside it"
    if sum(plan.span) < 0:
        return "the window is empty"
    if plan.kind.dtype not in ("float16", "bfloat16"):
        return f"its matrix products take 16-bit numbers, and the kind is in {plan.kind.dtype}"
    element = ELEMENT_BYTES[plan.kind.dtype]
    if any(dim * element % 16 for dim in (plan.kind.head_dim.qk, plan.kind.head_dim.v)):
        return "the copy engine needs rows of a multiple of 16 bytes"
    return None


def _rows(plan: ForwardPlan, config: Config) -> str | None:
    pack, warpgroups = int(config.get("PACK_HEADS") or 1), int(config.get("WARPGROUPS") or 1)
    if int(config["BLOCK_M"] or 0) != ROWS * warpgroups:
        return f"{warpgroups} warpgroups have {ROWS * warpgroups} rows"
    if plan.kind.heads.group % pack:
        return f"{pack} heads do not divide the group of {plan.kind.heads.group}"
    if ROWS // pack < 8:
        return "fewer than 8 queries a tile"
    if config.get("ACROSS") == "heads" and plan.kind.heads.group // pack % warpgroups:
        return f"{warpgroups} warpgroups do not divide the heads of a group"
    if warpgroups == 1 and config.get("ACROSS") == "heads":
        return "one warpgroup has no other beside it"
    shape = HopperWindowShape.of(plan, config)
    if not shape.across_heads and warpgroups > 1 and shape.queries % shape.block_n:
        return f"tiles of {shape.block_n} keys do not begin where a warpgroup's {shape.queries} queries do"
    stages = int(config["num_stages"] or 2)
    if stages < 2 or stages > max(shape.turns, 2):
        return f"2 to {max(shape.turns, 2)} buffers serve {shape.turns} turns"
    return None


def _memory(plan: ForwardPlan, config: Config) -> str | None:
    shape = HopperWindowShape.of(plan, config)
    if (keys := len(shape.tiles) * shape.block_n) > MOST_KEYS:
        return f"scores of {keys} keys; those of {MOST_KEYS} fit into registers"
    registers, most = shape.registers(plan), int(config.get("maxnreg") or MOST_REGISTERS)
    if registers > most:
        return f"scores of all resident keys and accumulators need about {registers} registers of {most}"
    if (needed := shape.shared_bytes(plan)) > MOST_SHARED:
        return f"{needed} bytes of shared memory; a program has {MOST_SHARED}"
    return None

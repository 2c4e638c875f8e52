"""The Hopper schedule's shape: how many warpgroups, what fits into shared memory and registers."""

from __future__ import annotations

from dataclasses import dataclass

from attngen.config import Config
from attngen.plan.chunks import held_width
from attngen.plan.forward import ForwardPlan
from attngen.plan.work import ELEMENT_BYTES

ROWS = 64  # of one warpgroup: the least that wgmma takes
PRODUCER_REGISTERS = 24
CONSUMER_REGISTERS = {1: 240, 2: 240, 3: 160}  # of a thread, by warpgroups: 64 Ki registers an SM
ENTRY_REGISTERS = {1: 240, 2: 168, 3: 128}  # before they are handed over
NAMED_BARRIERS = 8  # that the compiler leaves free
BARRIER_BYTES = 1024
WIDE_VALUES = 128  # columns of values beside which 128 keys still fit
VISITS = 4  # tiles of queries of a program between where they are announced and what is said of them


@dataclass(frozen=True)
class HopperShape:
    """What a config of the ``hopper`` schedule comes to for a plan."""

    consumers: int
    block_n: int
    stages: int
    pack: int
    heads_together: int
    ping_pong: bool
    separate_out: bool  # results have a place of their own in shared memory
    in_order: bool  # scores, softmax and values of a tile of keys before those of the next: no registers for both

    @classmethod
    def of(cls, plan: ForwardPlan, config: Config) -> HopperShape:
        consumers = int(config["BLOCK_M"] or 0) // ROWS
        block_n, stages = int(config["BLOCK_N"] or 0), int(config["num_stages"] or 2)
        return cls(
            consumers=consumers,
            block_n=block_n,
            stages=stages,
            pack=int(config.get("PACK_HEADS") or 1),
            heads_together=int(config.get("HEADS_TOGETHER") or 1),
            ping_pong=bool(config.get("PING_PONG")),
            separate_out=plan.kind.quantised
            or not _out_fits_queries(plan)
            or _bytes(plan, consumers, block_n, stages, True) <= MOST_SHARED,
            in_order=block_n > most_keys(plan),
        )

    @property
    def seamless(self) -> bool:
        """Whether a tile of queries begins while the one before ends: where tiles of keys overlap too, and results are
        not in the queries' place."""
        return self.separate_out and not self.in_order

    @property
    def consumer_registers(self) -> int:
        return CONSUMER_REGISTERS[self.consumers]

    @property
    def named_barriers(self) -> int:
        return 2 * self.stages + (self.consumers if self.ping_pong else 0)

    def shared_bytes(self, plan: ForwardPlan) -> int:
        return _bytes(plan, self.consumers, self.block_n, self.stages, self.separate_out)


MOST_SHARED = 232448  # bytes that a program has on Hopper


def most_keys(plan: ForwardPlan) -> int:
    """Keys of a tile whose scores fit into registers beside the accumulators and the weights of the tile before."""
    return 128 if held_width(plan.v_chunks) <= WIDE_VALUES else 64


def most_keys_in_order(plan: ForwardPlan) -> int:
    """The same where weights take no registers of their own: in 8 bits, they take the place of scores."""
    return 2 * most_keys(plan) if plan.kind.quantised else most_keys(plan)


def _out_fits_queries(plan: ForwardPlan) -> bool:
    """Whether each chunk of the result is as wide as the queries' chunk in whose place it would go."""
    qk = [c.width for c in plan.qk_chunks]
    v = [c.width for c in plan.v_chunks]
    return len(v) <= len(qk) and v == qk[: len(v)]


def _bytes(plan: ForwardPlan, consumers: int, block_n: int, stages: int, separate_out: bool) -> int:
    element = ELEMENT_BYTES[plan.kind.dtype]
    qk, v = held_width(plan.qk_chunks), held_width(plan.v_chunks)
    if plan.kind.quantised:  # sums are put aside in float32, where results go
        return consumers * ROWS * (qk + 4 * v) + stages * block_n * (qk + v) + BARRIER_BYTES
    rows = consumers * ROWS * (qk + (v if separate_out else 0))
    return (rows + stages * block_n * (qk + v)) * element + BARRIER_BYTES

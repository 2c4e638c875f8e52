"""The shapes of Hopper's backward kernels: which warpgroup makes what, what fits into shared memory and registers."""

from __future__ import annotations

from dataclasses import dataclass

from attngen.config import Config
from attngen.plan.backward import BackwardPlan
from attngen.plan.boxes import Box
from attngen.plan.chunks import held_width
from attngen.plan.forward import plan_forward
from attngen.plan.hopper import BARRIER_BYTES, CONSUMER_REGISTERS, ENTRY_REGISTERS, MOST_SHARED, ROWS
from attngen.plan.work import ELEMENT_BYTES

MOST_ACCUMULATED = 256  # columns of dk and dv together for which one warpgroup has registers
WEIGHT_BUFFERS = 2  # tiles of weights, or of scores' gradients, that warpgroups take from each other
WINDOW_REGISTERS = 168  # of a thread, where three programs share a multiprocessor
WRITTEN_BYTES = 2  # of an element of dq, which threads pass to each other where it is written
ROW_BYTES = 8  # of what a tile of queries has in the workspace: its log_sum and its delta


@dataclass(frozen=True)
class HopperGradientShape:
    """What a config of a Hopper schedule comes to for a plan."""

    consumers: int  # warpgroups that compute
    block_m: int
    block_n: int
    stages: int
    value_stages: int  # of backward_q, whose keys and values have slots of their own, else 0
    ahead: bool  # scores of the next tile are begun before this one is done
    wide: bool  # one warpgroup makes dv, the other dk
    window: bool  # one warpgroup loads and computes; several programs share a multiprocessor
    fused: bool  # dq is made too; tiles of queries come last first
    heads_inside: int  # of those that share the keys, of which a tile comes before the next tile of each
    blocks_together: int  # neighbouring blocks of a head that begin one after another
    short_blocks: int  # the last of a sequence, which fewer queries see than others

    @classmethod
    def of(cls, plan: BackwardPlan, config: Config) -> HopperGradientShape:
        block_m, block_n, stages = (int(config[name] or 0) for name in ("BLOCK_M", "BLOCK_N", "num_stages"))
        wide, window = (config["schedule"] == schedule for schedule in ("hopper_wide", "hopper_window"))
        value_stages = 0 if plan.by_key else stages
        fused = plan.kernel == "backward_fused"
        span = plan_forward(plan.kind).span if fused else None
        if plan.kernel == "backward_q" and _query_bytes(plan, block_m, block_n, stages, stages) > MOST_SHARED:
            value_stages = stages - 1
        return cls(
            consumers=2 if wide else (block_n if plan.by_key else block_m) // ROWS,
            block_m=block_m,
            block_n=block_n,
            stages=stages,
            value_stages=value_stages,
            ahead=wide or fused or bool(config.get("AHEAD")),
            wide=wide,
            window=window,
            fused=fused,
            heads_inside=plan.kind.heads.group if fused and span is None else 1,
            blocks_together=int(config.get("BLOCKS_TOGETHER") or 1),
            short_blocks=0 if span is None else -(-span[0] // block_n),
        )

    @property
    def narrow(self) -> bool:
        """Whether weights are kept as they are multiplied, in 16 bits, where registers are short."""
        return self.consumers > 2

    @property
    def consumer_registers(self) -> int:
        return WINDOW_REGISTERS if self.window else CONSUMER_REGISTERS[self.consumers]

    @property
    def entry_registers(self) -> int:
        return WINDOW_REGISTERS if self.window else ENTRY_REGISTERS[self.consumers]

    @property
    def named_barriers(self) -> int:
        """One a slot, and those by which warpgroups pass to each other what they make."""
        if self.window:
            return 0
        return self.stages + self.value_stages + (WEIGHT_BUFFERS + 1 if self.wide else 2 if self.fused else 0)

    def shared_bytes(self, plan: BackwardPlan) -> int:
        if plan.kernel == "backward_q":
            return _query_bytes(plan, self.block_m, self.block_n, self.stages, self.value_stages)
        columns = held_width(plan.qk_chunks + plan.v_chunks) * ELEMENT_BYTES[plan.kind.dtype]
        passed = WEIGHT_BUFFERS if self.wide else WEIGHT_BUFFERS * self.consumers if self.fused else 0
        weights = passed * ROWS * self.block_m * ELEMENT_BYTES[plan.kind.dtype]
        passing = self.stages * self.block_m * (columns + ROW_BYTES)
        written = WRITTEN_BYTES * self.block_m * plan.qk_chunks[0].width if self.fused else 0
        return self.block_n * columns + passing + weights + written + BARRIER_BYTES

    def part_width(self, plan: BackwardPlan) -> int:
        """Columns of dq that a warpgroup makes where dq is made beside dk and dv."""
        return plan.qk_chunks[0].width // self.consumers


def gradient_boxes(plan: BackwardPlan, config: Config) -> dict[str, Box]:
    """For each tensor that a Hopper kernel moves by the copy engine, the box: a warpgroup's rows of what a program
    keeps and of its results, a tile of what it goes over."""
    qk, v = plan.qk_chunks[0].width, plan.v_chunks[0].width
    if plan.by_key:
        kept, passing = {"k": qk, "v": v, "dk": qk, "dv": v}, {"q": qk, "dout": v}
        rows = int(config["BLOCK_M"] or 0)
    else:
        kept, passing = {"q": qk, "dout": v, "dq": qk}, {"k": qk, "v": v}
        rows = int(config["BLOCK_N"] or 0)
    boxes: dict[str, Box] = {name: (1, 1, ROWS, width) for name, width in kept.items()}
    return boxes | {name: (1, 1, rows, width) for name, width in passing.items()}


def _query_bytes(plan: BackwardPlan, block_m: int, block_n: int, stages: int, value_stages: int) -> int:
    qk, v = held_width(plan.qk_chunks), held_width(plan.v_chunks)
    elements = block_m * (qk + v) + block_n * (stages * qk + value_stages * v)
    return elements * ELEMENT_BYTES[plan.kind.dtype] + BARRIER_BYTES

"""The Hopper schedule of an indexer: what a config comes to, and what fits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from attngen.config import Config
from attngen.plan.hopper import BARRIER_BYTES, MOST_SHARED, ROWS
from attngen.plan.indexer import IndexerPlan

MOST_COLUMNS = 256  # of a matrix product
# By warpgroups, registers of a thread: 64 Ki an SM; weights and results take as many again as products.
MOST_ACCUMULATORS = {2: 128, 3: 64, 4: 64}
CONSUMER_REGISTERS = {2: 240, 3: 160, 4: 112}
ENTRY_REGISTERS = {2: 168, 3: 128, 4: 96}  # before they are handed over
OVERLAPPED_COLUMNS = 128  # of each of two products
OVERLAPPED_HEADS = 32  # of fewer, sums are so many that registers run out
MOST_STAGES = 8  # one named barrier each


@dataclass(frozen=True)
class IndexerShape:
    """A warpgroup multiplies a tile of BLOCK_N keys (rows) with ``columns``: all heads of its ``queries``."""

    warpgroups: int
    queries: int  # of a warpgroup
    columns: int  # of a warpgroup: queries x heads, padded
    block_n: int
    stages: int
    mixed: bool  # maxima for half of the columns, sums with magnitudes for the others
    products: int  # of a warpgroup and a tile of keys: the second runs while the first is summed up
    q_buffers: int  # of a program: the next item's queries are loaded while this one's are in use

    @classmethod
    def of(cls, plan: IndexerPlan, config: Config) -> IndexerShape:
        warpgroups, queries = int(config["WARPGROUPS"] or 0), int(config["BLOCK_Q"] or 0)
        block_n, stages = int(config["BLOCK_N"] or 0), int(config["num_stages"] or 0)
        columns = queries * plan.padded_heads
        products = 2 if config.get("OVERLAP") else 1
        one = cls(warpgroups, queries, columns, block_n, stages, bool(config.get("MIXED")), products, 1)
        two = replace(one, q_buffers=2)
        return two if config["PERSISTENT"] and two.shared_bytes(plan) <= MOST_SHARED else one

    @property
    def block_q(self) -> int:
        """Queries of a program at a time."""
        return self.queries * self.warpgroups

    @property
    def product_queries(self) -> int:
        return self.queries // self.products

    @property
    def product_columns(self) -> int:
        return self.columns // self.products

    @property
    def consumer_registers(self) -> int:
        return CONSUMER_REGISTERS[self.warpgroups]

    @property
    def entry_registers(self) -> int:
        return ENTRY_REGISTERS[self.warpgroups]

    @property
    def accumulators(self) -> int:
        """Registers of a thread for products."""
        return self.block_n * self.columns // 128

    def shared_bytes(self, plan: IndexerPlan) -> int:
        rows = self.q_buffers * self.warpgroups * self.columns + self.stages * self.block_n
        return rows * plan.width * plan.element_bytes + BARRIER_BYTES


def overlaps(plan: IndexerPlan, queries: int, block_n: int) -> bool:
    """Whether ``queries`` of a warpgroup are two products of the size of which two fit into registers."""
    columns = queries * plan.padded_heads
    return columns == 2 * OVERLAPPED_COLUMNS and block_n == ROWS and plan.padded_heads >= OVERLAPPED_HEADS


def why_not(plan: IndexerPlan, config: Config) -> str | None:
    """Why ``config`` of the ``hopper`` schedule cannot run ``plan``; None where it can."""
    shape = IndexerShape.of(plan, config)
    if shape.warpgroups not in MOST_ACCUMULATORS:
        return "two to four warpgroups compute"
    if not 8 <= shape.columns <= MOST_COLUMNS:
        return f"{shape.columns} columns; a matrix product has 8 to {MOST_COLUMNS}"
    if shape.block_n % ROWS or not shape.block_n:
        return f"tiles of {shape.block_n} keys; a matrix product has {ROWS}"
    if shape.accumulators > MOST_ACCUMULATORS[shape.warpgroups]:
        return f"{shape.accumulators} registers of products; {MOST_ACCUMULATORS[shape.warpgroups]} fit"
    if shape.products == 2 and (shape.warpgroups != 2 or not overlaps(plan, shape.queries, shape.block_n)):
        return "one product runs under the sums of another where two warpgroups have two of 64 keys x 128 columns each"
    if not 2 <= shape.stages <= MOST_STAGES:
        return f"2 to {MOST_STAGES} tiles of keys in shared memory"
    if (needed := shape.shared_bytes(plan)) > MOST_SHARED:
        return f"{needed} bytes of shared memory; a program has {MOST_SHARED}"
    return None

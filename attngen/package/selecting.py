"""What the modules of ops that attend to a selection of keys, single ones or blocks, have in common."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from attngen.package.checks import checks_of
from attngen.package.names import natural_key
from attngen.package.op import Op, Tuning
from attngen.package.tables import Table
from attngen.package.variants import Variant
from attngen.plan.attention import run_time_arguments
from attngen.spec.model import Kind

PLACED = ("offsets", "key_range")


@dataclass(frozen=True)
class SelectingOp:
    """What every template of such an op's module refers to."""

    kind: Kind
    function: str
    description: str
    seen: str  # which keys, for a table
    contents: str  # one entry of the package's table of contents
    tables: tuple[Table, ...]
    whole: Op | None  # the op for sequences no longer than a list

    @property
    def sort_key(self) -> list:
        return natural_key(self.function)

    @property
    def latent(self) -> bool:
        """Whether values are in the keys."""
        return self.kind.latent is not None

    @property
    def gluon(self) -> frozenset[str]:
        """Names of the tables that have kernels of Gluon."""
        return frozenset(table.name for table in self.tables if table.gluon)

    @property
    def variants(self) -> tuple[Variant, ...]:
        return tuple(variant for table in self.tables for variant in table.variants)

    @property
    def imports(self) -> list[Variant]:
        """Kernels in the order in which linters want modules."""
        return sorted(self.variants, key=lambda variant: natural_key(variant.module))

    @property
    def tunings(self) -> tuple[Tuning, ...]:
        rows = tuple(tuning for table in self.tables for tuning in table.tunings)
        return rows + (() if self.whole is None else self.whole.tunings)

    @property
    def sink(self) -> tuple[str, ...]:
        return ("sink",) if self.kind.sink else ()

    @property
    def whole_call(self) -> tuple[str, ...]:
        """Arguments of the op for short sequences."""
        return ("q", "k", "v", *(f"{name}={name}" for name in (*self.sink, *PLACED, "return_lse")))

    @property
    def checks(self) -> tuple[str, ...]:
        """Statements that check what comes beside queries, keys, values and lists."""
        reads = self.kind.read_by_symbol
        return tuple(checks_of(self.function, run_time_arguments(self.kind), reads=reads))

    @property
    def bounds(self) -> tuple[str, str]:
        """Statements that find the keys that a query at i may select, wherever a sequence begins and ends."""
        kind, lowers, uppers = self.kind, [], []
        if kind.causal:
            uppers.append("i + 1")
        if kind.window is not None and kind.window.left is not None:
            lowers.append(f"i - {kind.window.left}")
        if kind.window is not None and kind.window.right is not None and not kind.causal:
            uppers.append(f"i + {kind.window.right + 1}")
        if kind.chunk is not None:
            lowers.append(f"i - i % {kind.chunk}")
            uppers.append(f"i - i % {kind.chunk} + {kind.chunk}")
        return (
            f"first = {_nested('maximum', lowers, 'torch.zeros_like(i)')}",
            f"end = {_nested('minimum', uppers, 'torch.full_like(i, seq_k)')}",
        )


def _nested(function: str, bounds: list[str], otherwise: str) -> str:
    return reduce(lambda a, b: f"torch.{function}({a}, {b})", bounds) if bounds else otherwise

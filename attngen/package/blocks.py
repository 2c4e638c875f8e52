"""What the module of an op that attends to selected blocks of keys says: its kernels, its keywords, its checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attngen.database import Database
from attngen.package.block_words import documentation, notes, select_documentation
from attngen.package.checks import checks_of
from attngen.package.configs import config_table
from attngen.package.op import make_op
from attngen.package.selecting import PLACED, SelectingOp
from attngen.package.tables import launch_table
from attngen.package.words import described, wrapped, wrapped_lines
from attngen.plan.block_select import plan_block_select
from attngen.plan.forward import plan_forward
from attngen.plan.kernels import attended_whole, plan_listed
from attngen.plan.listed import blocks_of, lists_of
from attngen.plan.routed import RoutedPlan
from attngen.source import Source, render_routing
from attngen.source.routed import ENTRIES, MERGED_ROWS, WARPS, WORDS
from attngen.spec.model import BlockSelect, Compress, Kind
from attngen.target import Target

WORKSPACE = "workspace_bytes=_parts.WORKSPACE_BYTES"


@dataclass(frozen=True)
class BlockOp(SelectingOp):
    """Everything that the template of such an op's module refers to."""

    note: str  # of what it is a part of
    compressed: Kind | None  # the branch that scores blocks, of an op that is a branch itself
    routed: RoutedPlan | None  # of lists that queries are sorted by; None where a list is taken as it is
    entries: ClassVar[int] = ENTRIES  # of a step of the kernels that sort
    words: ClassVar[int] = WORDS
    merged_rows: ClassVar[int] = MERGED_ROWS
    sorting_warps: ClassVar[int] = WARPS

    @property
    def blocks(self) -> BlockSelect:
        """How blocks are selected."""
        return blocks_of(self.kind)

    @property
    def lists(self) -> int:
        """Lists of a query."""
        return lists_of(self.kind)

    @property
    def compress(self) -> Compress | None:
        """How the keys are compressed by which blocks are scored."""
        return None if self.compressed is None else self.compressed.compress

    @property
    def described(self) -> frozenset[bool]:
        """Whether keys and values come by descriptors: of each way to attend to blocks that queries are sorted by."""
        variants = [variant for table in self.tables if table.type == "Routing" for variant in table.variants]
        return frozenset(variant.loads == "descriptor" for variant in variants)

    @property
    def routing(self) -> dict[str, Source]:
        """The text of the kernels that sort and that merge, by module."""
        if self.routed is None:
            return {}
        made = render_routing(self.routed)
        return {f"_{self.function}_merge_kernel": made["merge"], f"_{self.function}_order_kernel": made["order"]}

    @property
    def signature(self) -> tuple[str, ...]:
        """Parameters of the op."""
        placed = [f"{name}=None" for name in PLACED]
        workspace = [] if self.routed is None else [WORKSPACE]
        return ("q", "k", "v", "*", *self.sink, "blocks=None", *placed, "return_lse=False", *workspace)

    @property
    def select_signature(self) -> tuple[str, ...]:
        """Parameters of the selection alone."""
        paid = [] if self.compressed is None else ["lse", "seq_k"]
        return ("q", "k", "*", *paid, *(f"{name}=None" for name in PLACED))

    @property
    def attended(self) -> tuple[str, ...]:
        """Arguments of attention over lists, beside its config."""
        workspace = [] if self.routed is None else ["workspace_bytes"]
        return ("q", "k", "v", "lists", *PLACED, *self.sink, "out", "lse", *workspace)

    @property
    def usage(self) -> tuple[str, ...]:
        """The arguments of a call, for an example."""
        return ("q", "k", "v", *(f"{name}={name}" for name in self.sink))

    @property
    def select_checks(self) -> tuple[str, ...]:
        return tuple(checks_of("select", ()))

    @property
    def documentation(self) -> tuple[str, ...]:
        """The rest of the op's docstring."""
        return wrapped_lines(documentation(self.kind, self.compressed, self.routed is not None))

    @property
    def select_documentation(self) -> tuple[str, ...]:
        return wrapped_lines(select_documentation(self.kind, self.compressed))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the README says of the op, a paragraph each."""
        return tuple(wrapped(note) for note in notes(self.kind, self.function, self.compressed))


def make_block_op(
    kind: Kind,
    function: str,
    target: Target,
    db: Database | str | None,
    *,
    compressed: Kind | None = None,
    note: str = "",
) -> BlockOp:
    """The op of a kind that selects blocks, called ``function``; NotGeneratedError where a kernel of it is not
    generated."""
    blocks, attending = blocks_of(kind), plan_listed(kind)
    dense = attended_whole(kind)
    assert dense is not None
    plan, count = plan_forward(dense), f"{blocks.top_k * blocks.size} keys, all blocks of a list"
    whole = f"For up to {count}: a query's is of every key that it sees."
    return BlockOp(
        kind=kind,
        function=function,
        **described(kind, function),
        tables=tuple(
            launch_table(plan, function, target, db) for plan in (plan_block_select(kind, compressed), attending)
        ),
        whole=make_op(plan, f"{function}_whole", config_table(plan, target, db), whole),
        note=wrapped(note),
        compressed=compressed,
        routed=attending if isinstance(attending, RoutedPlan) else None,
    )

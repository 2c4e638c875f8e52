"""What the module of an op that attends to selected keys says: its kernels, its keywords, its checks, its bounds."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from functools import reduce

from attngen.database import Database
from attngen.package.checks import checks_of
from attngen.package.configs import config_table
from attngen.package.names import natural_key
from attngen.package.op import WIDTH, Op, Tuning, make_op, wrapped
from attngen.package.sparse_words import documentation, notes, select_documentation, wrapped_lines
from attngen.package.tables import Table, launch_table
from attngen.package.variants import Variant
from attngen.plan import plan_forward
from attngen.plan.forward import run_time_arguments
from attngen.plan.gathered import plan_gathered
from attngen.plan.indexer import IndexerPlan
from attngen.plan.kernels import attended_whole, launched_plans
from attngen.source.gathered import gathered_boxes
from attngen.spec.describe import describe_kind, describe_mask
from attngen.spec.model import Indexer, Kind
from attngen.target import Target

INDEX = ("index_q", "index_k", "index_weights")
PLACED = ("offsets", "key_range")


@dataclass(frozen=True)
class SparseOp:
    """Everything that the template of such an op's module refers to."""

    kind: Kind
    function: str
    description: str
    seen: str  # which keys, for a table
    contents: str  # one entry of the package's table of contents
    indexer: Indexer | None
    index_dtype: str  # in which keys are scored
    tables: tuple[Table, ...]
    whole: Op | None  # the op for sequences no longer than a list
    boxes: dict[str, str]  # in which the copy engine moves queries and results

    @property
    def sort_key(self) -> list:
        return natural_key(self.function)

    @property
    def latent(self) -> bool:
        """Whether values are in the keys."""
        return self.kind.latent is not None

    @property
    def narrows(self) -> bool:
        """Whether keys are scored in 8 bits, and a kernel narrows them."""
        return self.index_dtype == "float8_e4m3"

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
    def signature(self) -> tuple[str, ...]:
        """Parameters of the op."""
        indexed = [f"{name}=None" for name in ("indices", *INDEX)] if self.indexer else ["indices"]
        values = "v=None" if self.latent else "v"
        placed = [f"{name}=None" for name in PLACED]
        workspace = ["workspace_bytes=_selecting.WORKSPACE_BYTES"] if self.indexer else []
        return ("q", "k", values, "*", *self.sink, *indexed, *placed, "return_lse=False", *workspace)

    @property
    def select_signature(self) -> tuple[str, ...]:
        """Parameters of the selection alone."""
        return (*INDEX, "*", *(f"{name}=None" for name in PLACED), "workspace_bytes=_selecting.WORKSPACE_BYTES")

    @property
    def attended(self) -> tuple[str, ...]:
        """Arguments of attention over lists, beside its config."""
        values, lengths = [] if self.latent else ["v"], ["lengths"] if self.indexer else []
        return ("q", "k", *values, "lists", *lengths, *PLACED, *self.sink, "out", "lse")

    @property
    def whole_call(self) -> tuple[str, ...]:
        """Arguments of the op for short sequences."""
        return ("q", "k", "v", *(f"{name}={name}" for name in (*self.sink, *PLACED, "return_lse")))

    @property
    def usage(self) -> tuple[str, ...]:
        """The arguments of a call, for an example."""
        values = () if self.latent else ("v",)
        given = (*self.sink, *(INDEX if self.indexer else ("indices",)))
        return ("q", "k", *values, *(f"{name}={name}" for name in given))

    @property
    def checks(self) -> tuple[str, ...]:
        """Statements that check what comes beside queries, keys, values and lists."""
        return tuple(checks_of(self.function, run_time_arguments(self.kind)))

    @property
    def select_checks(self) -> tuple[str, ...]:
        return tuple(checks_of("select", (), "index_q"))

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

    @property
    def documentation(self) -> tuple[str, ...]:
        """The rest of the op's docstring."""
        return wrapped_lines(documentation(self.kind))

    @property
    def select_documentation(self) -> tuple[str, ...]:
        return wrapped_lines(select_documentation(self.kind, self.index_dtype))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the README says of the op, a paragraph each."""
        return tuple(wrapped(note) for note in notes(self.kind, self.function, self.index_dtype))


def make_sparse_op(kind: Kind, function: str, target: Target, db: Database | str | None) -> SparseOp:
    """The op of a kind that selects keys, called ``function``; NotGeneratedError where a kernel of it is not
    generated."""
    assert kind.select is not None
    indexer = kind.select.indexer
    plans = [plan for plan in launched_plans(kind, target) if plan.kernel != "forward"]
    scoring = next((plan for plan in plans if isinstance(plan, IndexerPlan)), None)
    tables = tuple(launch_table(plan, function, target, db) for plan in plans)
    dense, whole = attended_whole(kind) if indexer is not None else None, None
    if dense is not None:
        note = f"For up to {kind.select.top_k} keys, the length of a list: a query's is of every key that it sees."
        plan = plan_forward(dense)
        whole = make_op(plan, f"{function}_whole", config_table(plan, target, db), note)
    boxes = gathered_boxes(plan_gathered(kind)) if kind.latent is not None else {}
    return SparseOp(
        kind=kind,
        function=function,
        description=wrapped(f"{'; '.join(describe_kind(kind)[1:])}."),
        seen=describe_mask(kind).removeprefix("sees ").replace("|", "\\|"),
        contents="\n".join(textwrap.wrap(f"{function}: {describe_mask(kind)}", WIDTH, subsequent_indent="    ")),
        indexer=indexer,
        index_dtype="" if scoring is None else scoring.dtype,
        tables=tables,
        whole=whole,
        boxes={name: ", ".join(map(str, box)) for name, box in boxes.items()},
    )


def _nested(function: str, bounds: list[str], otherwise: str) -> str:
    return reduce(lambda a, b: f"torch.{function}({a}, {b})", bounds) if bounds else otherwise

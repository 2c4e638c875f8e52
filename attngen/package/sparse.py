"""What the module of an op that attends to selected keys says: its kernels, its keywords, its checks, its bounds."""

from __future__ import annotations

from dataclasses import dataclass

from attngen.database import Database
from attngen.package.checks import checks_of
from attngen.package.configs import config_table
from attngen.package.op import make_op
from attngen.package.selecting import PLACED, SelectingOp
from attngen.package.sparse_words import documentation, notes, select_documentation
from attngen.package.tables import launch_table
from attngen.package.words import described, wrapped, wrapped_lines
from attngen.plan import plan_forward
from attngen.plan.gathered import plan_gathered
from attngen.plan.indexer import IndexerPlan
from attngen.plan.kernels import attended_whole, launched_plans
from attngen.source.gathered import gathered_boxes
from attngen.spec.model import Indexer, Kind
from attngen.target import Target

INDEX = ("index_q", "index_k", "index_weights")


@dataclass(frozen=True)
class SparseOp(SelectingOp):
    """Everything that the template of such an op's module refers to."""

    indexer: Indexer | None
    index_dtype: str  # in which keys are scored
    boxes: dict[str, str]  # in which the copy engine moves queries and results

    @property
    def narrows(self) -> bool:
        """Whether keys are scored in 8 bits, and a kernel narrows them."""
        return self.index_dtype == "float8_e4m3"

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
    def usage(self) -> tuple[str, ...]:
        """The arguments of a call, for an example."""
        values = () if self.latent else ("v",)
        given = (*self.sink, *(INDEX if self.indexer else ("indices",)))
        return ("q", "k", *values, *(f"{name}={name}" for name in given))

    @property
    def select_checks(self) -> tuple[str, ...]:
        return tuple(checks_of("select", (), "index_q"))

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
        **described(kind, function),
        indexer=indexer,
        index_dtype="" if scoring is None else scoring.dtype,
        tables=tables,
        whole=whole,
        boxes={name: ", ".join(map(str, box)) for name, box in boxes.items()},
    )

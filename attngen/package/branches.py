"""What the module of an op in branches says: what each branch is given, and in which order they run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from attngen.database import Database
from attngen.package.blocks import BlockOp, make_block_op
from attngen.package.checks import checks_of
from attngen.package.configs import config_table
from attngen.package.names import function_names, natural_key
from attngen.package.op import Op, Tuning, make_op
from attngen.package.selecting import PLACED
from attngen.package.words import described, placed, tensors, wrapped, wrapped_lines
from attngen.plan.attention import run_time_arguments
from attngen.plan.forward import plan_forward
from attngen.spec.model import Kind
from attngen.target import Target


@dataclass(frozen=True)
class Branch:
    """One branch: its name, which begins the keywords that are its own, and its op."""

    name: str
    op: Op | BlockOp
    by: str | None  # the branch that scores its blocks

    @property
    def listed(self) -> bool:
        """Whether it attends to blocks, of which lists may be given."""
        return isinstance(self.op, BlockOp)

    @property
    def arguments(self) -> tuple[str, ...]:
        """What its op must be given, as the op calls it."""
        return tuple(argument.name for argument in run_time_arguments(self.op.kind))

    @property
    def call(self) -> tuple[str, ...]:
        """Arguments of its op."""
        own = [f"{name}={self.name}_{name}" for name in (*self.arguments, *(["blocks"] if self.listed else []))]
        if self.op.kind.compress is not None:
            return ("q", f"{self.name}_k", f"{self.name}_v", *own, "**placed", "return_lse=True")
        keys = (f"{x} if {self.name}_{x} is None else {self.name}_{x}" for x in "kv")
        return ("q", *keys, *own, *(f"{name}={name}" for name in PLACED))


@dataclass(frozen=True)
class BranchedOp:
    """Everything that the template of such an op's module refers to."""

    kind: Kind
    function: str
    description: str
    seen: str  # which keys, for a table
    contents: str  # one entry of the package's table of contents
    branches: tuple[Branch, ...]
    tunings: ClassVar[tuple[Tuning, ...]] = ()  # branches have theirs

    @property
    def sort_key(self) -> list:
        return natural_key(self.function)

    @property
    def in_order(self) -> list[Branch]:
        """Branches as they run: blocks are selected by what another gave."""
        return sorted(self.branches, key=lambda branch: branch.listed)

    @property
    def imports(self) -> list[tuple[str, str]]:
        """Modules and what is imported of each, in the order in which linters want them."""
        made = [(branch.op.function, branch.op.function) for branch in self.branches]
        made += [(branch.op.function, f"select as _select_{branch.name}") for branch in self.branches if branch.by]
        return sorted(made, key=lambda one: [natural_key(name) for name in one])

    @property
    def compresses(self) -> bool:
        return any(branch.op.kind.compress is not None for branch in self.branches)

    @property
    def _required(self) -> list[str]:
        return [f"{branch.name}_{name}" for branch in self.branches for name in branch.arguments]

    @property
    def signature(self) -> tuple[str, ...]:
        """Parameters of the op."""
        own = [
            f"{branch.name}_{name}=None"
            for branch in self.branches
            for name in ("k", "v", *(["blocks"] if branch.listed else []))
        ]
        return ("q", "k", "v", "*", "gates", *self._required, *own, *(f"{name}=None" for name in PLACED))

    @property
    def usage(self) -> tuple[str, ...]:
        """The arguments of a call, for an example."""
        return ("q", "k", "v", "gates=gates", *(f"{name}={name}" for name in self._required))

    @property
    def checks(self) -> tuple[str, ...]:
        """Statements that check what all branches are given beside queries, keys and values."""
        return tuple(checks_of(self.function, ()))

    @property
    def documentation(self) -> tuple[str, ...]:
        """The rest of the op's docstring."""
        return wrapped_lines(self._documentation())

    def _documentation(self) -> Iterable[str]:
        heads, dim = self.kind.heads, self.kind.head_dim
        yield tensors(self.kind)
        names = ", ".join(branch.name for branch in self.branches)
        yield f"gates: (batch, {heads.query}, seq_q, {len(self.branches)}), any floating dtype: of {names}."
        for branch in self.branches:
            name, of_op = branch.name, f"as of {branch.op.function}()"
            yield f"{name}_k, {name}_v: {_own_keys(branch.op.kind)}"
            if branch.listed:
                yield f"{name}_blocks: lists of blocks, {of_op}; selected when left out."
            if branch.arguments:
                yield f"{', '.join(f'{name}_{argument}' for argument in branch.arguments)}: {of_op}."
        yield from placed()
        yield (
            f"Returns out (batch, {heads.query}, seq_q, {dim.v}), laid out like q, added up in float32. A branch whose "
            "query sees no key adds 0."
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the README says of the op, a paragraph each."""
        names = [branch.name for branch in self.branches]
        functions = _joined([f"`{branch.op.function}`" for branch in self.branches])
        note = (
            f"`{self.function}` is the sum of {len(names)} branches, each times its gate: `gates` is (batch, "
            f"{self.kind.heads.query}, seq_q, {len(names)}), of {_joined(names)} in this order. A sum has no lse; each "
            f"branch is an op of its own that gives one: {functions}. Keys and values that a branch has for itself are "
            f"given under its name: `{names[0]}_k` and `{names[0]}_v`."
        )
        means = [
            f"`{branch.name}_k` and `{branch.name}_v`, left out, are means of {_windows(branch.op.kind)}."
            for branch in self.branches
            if branch.op.kind.compress is not None
        ]
        return tuple(wrapped(text) for text in (note, *means))


def make_branched_op(
    kind: Kind, function: str, target: Target, db: Database | str | None, given: Iterable[str]
) -> BranchedOp:
    """The op of a kind in branches, called ``function``, and those of its branches, called otherwise than those
    ``given``; NotGeneratedError where a kernel is not generated."""
    by_name = {branch.name: branch for branch in kind.branches}
    names = function_names((f"{function}_{name}" for name in by_name), given)
    branches = []
    for branch in kind.branches:
        called, note = names[f"{function}_{branch.name}"], f"A branch of {function}()."
        blocks = None if branch.select is None else branch.select.blocks
        by = None if blocks is None else blocks.by
        op: Op | BlockOp
        if blocks is not None:
            scoring = None if by is None else by_name[by]
            op = make_block_op(branch, called, target, db, compressed=scoring, note=note)
        else:
            plan = plan_forward(branch)
            op = make_op(plan, called, config_table(plan, target, db), note)
        branches.append(Branch(branch.name, op, by))
    return BranchedOp(kind, function, **described(kind, function), branches=tuple(branches))


def _own_keys(kind: Kind) -> str:
    """What keys and values of a branch are."""
    if kind.compress is None:
        return "keys and values of its own; k and v when left out."
    return f"(batch, {kind.heads.kv}, compressed, dim); when left out, means of {_windows(kind)}."


def _windows(kind: Kind) -> str:
    assert kind.compress is not None
    return f"{kind.compress.size} rows of k and v, a new one beginning every {kind.compress.stride} rows"


def _joined(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]

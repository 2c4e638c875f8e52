"""Mask and score expressions: a checked tree, and its normal text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from attngen.spec.grammar import ExpressionError, Role, parse_tree
from attngen.spec.nodes import (
    Binary,
    Boolean,
    Call,
    Compare,
    Logic,
    Name,
    Node,
    Not,
    Number,
    Scalar,
    Select,
    Tensor,
    Type,
    Unary,
    walk,
)

__all__ = [
    "Binary",
    "Boolean",
    "Call",
    "Compare",
    "Expression",
    "ExpressionError",
    "Logic",
    "Name",
    "Node",
    "Not",
    "Number",
    "Role",
    "Scalar",
    "Select",
    "Tensor",
    "Type",
    "Unary",
    "walk",
]


@dataclass(frozen=True)
class Expression:
    """A checked expression; ``text`` is its normal form, whatever its spaces and parentheses were."""

    text: str
    role: Role
    tree: Node

    @staticmethod
    def parse(text: str, role: Role) -> Expression:
        """The expression that ``text`` writes; ExpressionError when it is not one of the language."""
        normal, tree = parse_tree(text, role)
        return Expression(normal, role, tree)

    @cached_property
    def scalars(self) -> tuple[str, ...]:
        """Names of the numbers given at call time, sorted."""
        return tuple(sorted({node.id for node in walk(self.tree) if isinstance(node, Scalar)}))

    @cached_property
    def tensors(self) -> tuple[tuple[str, int], ...]:
        """Names and ranks of the tensors given at call time, sorted."""
        return tuple(sorted({(node.id, len(node.indices)) for node in walk(self.tree) if isinstance(node, Tensor)}))

    @cached_property
    def read_by_symbol(self) -> tuple[tuple[str, int, str], ...]:
        """Of tensors, the names, which of their indices is one of ``b``, ``h``, ``i`` and ``j`` itself, and which,
        sorted."""
        reads = [node for node in walk(self.tree) if isinstance(node, Tensor)]
        indices = ((read.id, n, index) for read in reads for n, index in enumerate(read.indices))
        return tuple(sorted({(name, n, at.id) for name, n, at in indices if isinstance(at, Name) and at.id in "bhij"}))

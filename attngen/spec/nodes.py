"""The nodes of mask and score expressions: frozen, and each knows its type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal, Union, get_args

Type = Literal["int", "float", "bool"]

SCORE = "s"  # the scaled logit, after softcap and ALiBi
MATH_FUNCTIONS = ("exp", "log", "sqrt", "tanh", "sigmoid")  # one number in, a float out


@dataclass(frozen=True)
class Number:
    """A literal, ``inf`` or ``pi``."""

    value: int | float

    @property
    def type(self) -> Type:
        return "float" if isinstance(self.value, float) else "int"

    def __eq__(self, other: object) -> bool:  # 1 and 1.0 are different nodes
        return isinstance(other, Number) and (self.type, self.value) == (other.type, other.value)

    def __hash__(self) -> int:
        return hash((self.type, self.value))


@dataclass(frozen=True)
class Boolean:
    """``True`` or ``False``."""

    value: bool
    type: Type = "bool"


@dataclass(frozen=True)
class Name:
    """``i``, ``j``, ``h``, ``b`` or ``s``."""

    id: str

    @property
    def type(self) -> Type:
        return "float" if self.id == SCORE else "int"


@dataclass(frozen=True)
class Scalar:
    """A number given when the op is called."""

    id: str
    type: Type = "float"


@dataclass(frozen=True)
class Tensor:
    """An element of a tensor given when the op is called; indices are clamped to its shape."""

    id: str
    indices: tuple[Node, ...]
    type: Type = "float"


@dataclass(frozen=True)
class Unary:
    """Minus a number."""

    op: Literal["-"]
    operand: Node

    @property
    def type(self) -> Type:
        return self.operand.type


@dataclass(frozen=True)
class Binary:
    """Arithmetic; ``//`` and ``%`` floor, as in Python; the exponent of ``**`` is an integer Number."""

    op: Literal["+", "-", "*", "/", "//", "%", "**"]
    left: Node
    right: Node

    @property
    def type(self) -> Type:
        negative_power = self.op == "**" and isinstance(self.right, Number) and self.right.value < 0
        return "float" if self.op == "/" or negative_power else _common((self.left, self.right))


@dataclass(frozen=True)
class Compare:
    """Two numbers compared; a chain of comparisons becomes a Logic of these."""

    op: Literal["<", "<=", ">", ">=", "==", "!="]
    left: Node
    right: Node
    type: Type = "bool"


@dataclass(frozen=True)
class Logic:
    """Two or more conditions joined."""

    op: Literal["and", "or"]
    operands: tuple[Node, ...]
    type: Type = "bool"


@dataclass(frozen=True)
class Not:
    """A condition negated."""

    operand: Node
    type: Type = "bool"


@dataclass(frozen=True)
class Select:
    """``then if condition else otherwise``, also written ``where(condition, then, otherwise)``."""

    condition: Node
    then: Node
    otherwise: Node

    @property
    def type(self) -> Type:
        return _common((self.then, self.otherwise))


@dataclass(frozen=True)
class Call:
    """A function of one number (``min`` and ``max``: of two or more)."""

    function: str
    arguments: tuple[Node, ...]

    @property
    def type(self) -> Type:
        if self.function in MATH_FUNCTIONS:
            return "float"
        return "int" if self.function == "floor" else _common(self.arguments)


Node = Union[Number, Boolean, Name, Scalar, Tensor, Unary, Binary, Compare, Logic, Not, Select, Call]  # noqa: UP007


def _common(nodes: tuple[Node, ...]) -> Type:
    types = {node.type for node in nodes}
    return "bool" if types == {"bool"} else "float" if "float" in types else "int"


def walk(node: Node) -> Iterator[Node]:
    """``node`` and every node below it, parents first."""
    yield node
    for part in fields(node):
        value = getattr(node, part.name)
        for child in value if isinstance(value, tuple) else (value,):
            if isinstance(child, get_args(Node)):
                yield from walk(child)

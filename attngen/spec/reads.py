"""What a score reads of the caller's tensors, and on which positions the place of each read depends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attngen.spec.nodes import (
    SCORE,
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
    Unary,
    walk,
)

Positions = Literal["none", "query", "key", "distance", "both"]


@dataclass(frozen=True)
class Dependence:
    """What the indices of a read depend on: of i and j "query" is i, "key" is j, "distance" is i - j alone."""

    positions: Positions
    head: bool
    batch: bool


def varying_operands(node: Node) -> tuple[Node, ...]:
    """The operands whose small changes change ``node``; conditions, floors and indices change it in steps only."""
    match node:
        case Unary(operand=operand):
            return (operand,)
        case Binary(op=op, left=left, right=right) if op != "//":
            return (left, right)
        case Select(then=then, otherwise=otherwise):
            return (then, otherwise)
        case Call(function=function, arguments=arguments) if function != "floor":
            return arguments
        case _:
            return ()


def reads(tree: Node) -> tuple[Tensor, ...]:
    """The reads that ``tree`` has a derivative in, each once, in the order in which they are written."""
    if isinstance(tree, Tensor):
        return (tree,)
    return tuple(dict.fromkeys(read for operand in varying_operands(tree) for read in reads(operand)))


def dependence(read: Tensor) -> Dependence:
    """What the indices of ``read`` depend on; "both" also where it cannot be told."""
    names = {node.id for index in read.indices for node in walk(index) if isinstance(node, Name)}
    if SCORE in names:
        return Dependence("both", head=True, batch=True)
    positions: Positions = "none"
    if {"i", "j"} <= names:
        positions = "distance" if _unmoved(*read.indices) else "both"
    elif "i" in names:
        positions = "query"
    elif "j" in names:
        positions = "key"
    return Dependence(positions, head="h" in names, batch="b" in names)


def _unmoved(*nodes: Node) -> bool:
    return all(_moves(node) == 0 for node in nodes)


def _moves(node: Node) -> int | None:
    """How far ``node`` moves when i and j both move by one: 0 is a function of i - j; None where it varies."""
    match node:
        case Name(id=name):
            return 1 if name in ("i", "j") else 0
        case Number() | Boolean() | Scalar():
            return 0
        case Tensor(indices=operands) | Logic(operands=operands):
            return 0 if _unmoved(*operands) else None
        case Not(operand=operand):
            return _moves(operand)
        case Compare(left=left, right=right):
            return None if _alike(left, right) is None else 0
        case Select(condition=condition, then=then, otherwise=otherwise):
            return _alike(then, otherwise) if _unmoved(condition) else None
        case Call(function="min" | "max", arguments=arguments):
            return _alike(*arguments)
        case Call(arguments=arguments):
            return 0 if _unmoved(*arguments) else None
        case Unary(operand=operand):
            return _moves(Binary("-", Number(0), operand))
        case Binary(op=op, left=left, right=right):
            return 0 if _unmoved(left, right) else _sum_moves(op, left, right)
    raise TypeError(f"not a number or a condition: {node!r}")


def _alike(*nodes: Node) -> int | None:
    """How far all ``nodes`` move, when they move together."""
    moves = {_moves(node) for node in nodes}
    return moves.pop() if len(moves) == 1 else None


def _sum_moves(op: str, left: Node, right: Node) -> int | None:
    """The same for a sum or a multiple of whole numbers; one of floats is rounded, differently at every position."""
    a, b = _moves(left), _moves(right)
    if a is None or b is None or "float" in (left.type, right.type):
        return None
    match op, left, right:
        case ("+", _, _):
            return a + b
        case ("-", _, _):
            return a - b
        case ("*", Number(value=factor), _):
            return int(factor) * b
        case ("*", _, Number(value=factor)):
            return a * int(factor)
        case _:
            return None

"""Mask and score expressions, written as Triton over a tile of scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    Unary,
    walk,
)

# How tightly Python's operators bind, loosest first.
_OR, _AND, _COMPARE, _SUM, _PRODUCT, _UNARY, _ATOM = range(7)

COLUMN = "column"  # names a position that every element of a tile has

_FUNCTIONS = {
    "abs": "tl.abs",
    "exp": "tl.exp",
    "log": "tl.log",
    "sqrt": "tl.sqrt",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
}


@dataclass
class Reads:
    """Elements of the caller's tensors that an expression reads, each given a name of its own."""

    calls: dict[tuple[str, ...], str] = field(default_factory=dict)  # helper and arguments -> the element's name

    def name(self, tensor: str, indices: list[str]) -> str:
        """The name of ``tensor`` at ``indices``; equal reads share one."""
        arguments = [f"{tensor}_ptr"]
        for n, index in enumerate(indices):
            arguments += [index, f"{tensor}_size_{n}", f"{tensor}_stride_{n}"]
        key = (f"element_{len(indices)}", *arguments)
        return self.calls.setdefault(key, f"{tensor}_at_{len(self.calls)}")


def write(node: Node, names: Mapping[str, str], reads: Reads) -> str:
    """``node`` as Triton. ``names`` maps i, j, h, b and s to what they are called in the kernel."""
    return _Writer(names, reads).text(node)


def helpers(nodes: list[Node]) -> set[str]:
    """Names of the helper functions that the written expressions call."""
    used: set[str] = set()
    for root in nodes:
        for node in walk(root):
            match node:
                case Binary(op="//" | "%"):
                    used.add("floor_div")
                case Call(function="tanh" | "sigmoid" as name):
                    used.add(name)
                case Tensor():
                    used.add("element")
    return used


def _number(value: float) -> tuple[str, int]:
    if abs(value) == float("inf"):
        return f'float("{value}")', _ATOM
    return repr(value), _ATOM if value >= 0 else _UNARY


class _Writer:
    def __init__(self, names: Mapping[str, str], reads: Reads) -> None:
        self.names = names
        self.reads = reads

    def text(self, node: Node) -> str:
        return self.bound(node)[0]

    def bound(self, node: Node) -> tuple[str, int]:
        """The text of ``node`` and how tightly it binds."""
        match node:
            case Number(value=value):
                return _number(value)
            case Boolean(value=value):
                return f"{self.names[COLUMN]} {'==' if value else '!='} {self.names[COLUMN]}", _COMPARE
            case Name(id=name):
                return self.names[name], _ATOM
            case Scalar(id=name):
                return f"{name}_value", _ATOM
            case Tensor(id=name, indices=indices):
                return self.reads.name(name, [self.text(index) for index in indices]), _ATOM
            case Unary(operand=operand):
                return f"-{self.bracketed(operand, _UNARY)}", _UNARY
            case Binary():
                return self.binary(node)
            case Compare(op=op, left=left, right=right):
                return f"{self.bracketed(left, _SUM)} {op} {self.bracketed(right, _SUM)}", _COMPARE
            case Logic(op=op, operands=operands):
                sign, binding = ("&", _AND) if op == "and" else ("|", _OR)
                return f" {sign} ".join(self.condition(operand) for operand in operands), binding
            case Not(operand=operand):
                return f"({self.condition(operand)} == 0)", _ATOM
            case Select(condition=condition, then=then, otherwise=otherwise):
                return f"tl.where({self.text(condition)}, {self.text(then)}, {self.text(otherwise)})", _ATOM
            case Call():
                return self.call(node), _ATOM
        raise TypeError(f"no Triton for {node!r}")

    def binary(self, node: Binary) -> tuple[str, int]:
        left, right = node.left, node.right
        if node.op == "//":
            return self.floor_div(node), _ATOM
        if node.op == "%":
            divisor = self.bracketed(right, _UNARY)
            return f"{self.bracketed(left, _SUM)} - {self.floor_div(node)} * {divisor}", _SUM
        if node.op == "**":
            assert isinstance(right, Number)
            power = int(right.value)
            base = self.bracketed(left, _PRODUCT + 1)
            text = " * ".join([base] * abs(power)) if power else "1"
            return (f"1.0 / ({text})", _PRODUCT) if power < 0 else (text, _PRODUCT)
        binding = _SUM if node.op in "+-" else _PRODUCT
        # The right operand of - and / is bracketed when it binds no tighter.
        return (
            f"{self.bracketed(left, binding)} {node.op} {self.bracketed(right, binding + (node.op in '-/'))}",
            binding,
        )

    def floor_div(self, node: Binary) -> str:
        left, right = self.text(node.left), self.text(node.right)
        if node.type == "int" and node.left.type == node.right.type == "int":
            return f"floor_div({left}, {right})"
        return f"tl.floor({self.bracketed(node.left, _PRODUCT)} / {self.bracketed(node.right, _UNARY)})"

    def call(self, node: Call) -> str:
        arguments = [self.text(argument) for argument in node.arguments]
        if node.function in ("min", "max"):
            text = arguments[0]
            for argument in arguments[1:]:
                text = f"tl.{node.function}imum({text}, {argument})"
            return text
        if node.function == "floor":
            operand = node.arguments[0]
            return arguments[0] if operand.type == "int" else f"tl.floor({arguments[0]}).to(tl.int32)"
        argument = arguments[0]
        if node.function != "abs" and node.arguments[0].type == "int":
            argument = f"({argument}) * 1.0"
        return f"{_FUNCTIONS[node.function]}({argument})"

    def bracketed(self, node: Node, binding: int) -> str:
        text, own = self.bound(node)
        return text if own >= binding else f"({text})"

    def condition(self, node: Node) -> str:
        """An operand of & and |, which bind tighter than comparisons."""
        text, own = self.bound(node)
        return text if own == _ATOM else f"({text})"

"""Mask and score expressions, written as Triton over a tile of scores."""

from __future__ import annotations

from collections.abc import Mapping

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

_FUNCTIONS = {
    "abs": "tl.abs",
    "exp": "tl.exp",
    "log": "tl.log",
    "sqrt": "tl.sqrt",
    "sigmoid": "tl.sigmoid",
    "tanh": "tanh",
}


def write(node: Node, names: Mapping[str, str]) -> str:
    """``node`` as Triton. ``names`` maps i, j, h, b and s to what they are called in the kernel."""
    return _write(node, names)[0]


def helpers(nodes: list[Node]) -> set[str]:
    """Names of the helper functions that the written expressions call."""
    used: set[str] = set()
    for root in nodes:
        for node in walk(root):
            match node:
                case Binary(op="//" | "%"):
                    used.add("floor_div")
                case Call(function="tanh"):
                    used.add("tanh")
                case Tensor():
                    used.add("element")
    return used


def tensors_used(node: Node) -> set[str]:
    return {part.id for part in walk(node) if isinstance(part, Tensor)}


def _write(node: Node, names: Mapping[str, str]) -> tuple[str, int]:
    match node:
        case Number(value=value):
            return _number(value)
        case Boolean(value=value):
            return f"(j[None, :] {'>=' if value else '<'} 0)", _ATOM
        case Name(id=name):
            return names[name], _ATOM
        case Scalar(id=name):
            return name, _ATOM
        case Tensor(id=name, indices=indices):
            return _element(name, [write(index, names) for index in indices]), _ATOM
        case Unary(operand=operand):
            return f"-{_bracketed(operand, names, _UNARY)}", _UNARY
        case Binary():
            return _binary(node, names)
        case Compare(op=op, left=left, right=right):
            return f"{_bracketed(left, names, _SUM)} {op} {_bracketed(right, names, _SUM)}", _COMPARE
        case Logic(op=op, operands=operands):
            sign, binding = ("&", _AND) if op == "and" else ("|", _OR)
            return f" {sign} ".join(_condition(operand, names) for operand in operands), binding
        case Not(operand=operand):
            return f"({_condition(operand, names)} == 0)", _ATOM
        case Select(condition=condition, then=then, otherwise=otherwise):
            return f"tl.where({write(condition, names)}, {write(then, names)}, {write(otherwise, names)})", _ATOM
        case Call():
            return _call(node, names), _ATOM
    raise TypeError(f"no Triton for {node!r}")


def _number(value: int | float) -> tuple[str, int]:
    if value == float("inf"):
        return 'float("inf")', _ATOM
    return repr(value), _ATOM if value >= 0 else _UNARY


def _element(name: str, indices: list[str]) -> str:
    """A clamped load; its helper has one index, size and stride a dimension."""
    parts = [f"{index}, {name}_size_{n}, {name}_stride_{n}" for n, index in enumerate(indices)]
    return f"element_{len(indices)}({name}_ptr, {', '.join(parts)})"


def _binary(node: Binary, names: Mapping[str, str]) -> tuple[str, int]:
    left, right = node.left, node.right
    if node.op == "//":
        return _floor_div(node, names), _ATOM
    if node.op == "%":
        divisor = _bracketed(right, names, _UNARY)
        return f"{_bracketed(left, names, _SUM)} - {_floor_div(node, names)} * {divisor}", _SUM
    if node.op == "**":
        assert isinstance(right, Number)
        power = int(right.value)
        base = _bracketed(left, names, _PRODUCT + 1)
        text = " * ".join([base] * abs(power)) if power else "1"
        return (f"1.0 / ({text})", _PRODUCT) if power < 0 else (text, _PRODUCT)
    binding = _SUM if node.op in "+-" else _PRODUCT
    # The right operand of - and / is bracketed when it binds no tighter.
    return (
        f"{_bracketed(left, names, binding)} {node.op} {_bracketed(right, names, binding + (node.op in '-/'))}",
        binding,
    )


def _floor_div(node: Binary, names: Mapping[str, str]) -> str:
    left, right = write(node.left, names), write(node.right, names)
    if node.type == "int" and node.left.type == node.right.type == "int":
        return f"floor_div({left}, {right})"
    return f"tl.floor({_bracketed(node.left, names, _PRODUCT)} / {_bracketed(node.right, names, _UNARY)})"


def _call(node: Call, names: Mapping[str, str]) -> str:
    arguments = [write(argument, names) for argument in node.arguments]
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


def _bracketed(node: Node, names: Mapping[str, str], binding: int) -> str:
    text, own = _write(node, names)
    return text if own >= binding else f"({text})"


def _condition(node: Node, names: Mapping[str, str]) -> str:
    """An operand of & and |, which bind tighter than comparisons."""
    text, own = _write(node, names)
    return text if own == _ATOM else f"({text})"

"""Mask and score expressions evaluated over tensors, for the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

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
)

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: torch.true_divide(*_tensors(a, b)),
    "//": lambda a, b: torch.div(*_tensors(a, b), rounding_mode="floor"),
    "%": lambda a, b: torch.remainder(*_tensors(a, b)),
}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


def evaluate(node: Node, names: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """The value of ``node``: ``names`` holds i, j, h, b (and s), ``arguments`` the caller's tensors and numbers."""

    def value(part: Node) -> Any:
        return evaluate(part, names, arguments)

    match node:
        case Number(value=number) | Boolean(value=number):
            return (
                torch.as_tensor(number, dtype=torch.float64) if isinstance(number, float) else torch.as_tensor(number)
            )
        case Name(id=name):
            return torch.as_tensor(names[name])
        case Scalar(id=name):
            return torch.as_tensor(arguments[name], dtype=torch.float64)
        case Tensor(id=name, indices=indices):
            return _element(arguments[name], [value(index) for index in indices])
        case Unary(operand=operand):
            return -value(operand)
        case Binary(op="**", left=left, right=Number(value=power)):
            base = value(left)
            return base**power if power >= 0 else 1.0 / base ** (-power)
        case Binary(op=op, left=left, right=right):
            return _ARITHMETIC[op](value(left), value(right))
        case Compare(op=op, left=left, right=right):
            return _COMPARISONS[op](value(left), value(right))
        case Logic(op=op, operands=operands):
            result = value(operands[0])
            for operand in operands[1:]:
                result = result & value(operand) if op == "and" else result | value(operand)
            return result
        case Not(operand=operand):
            return ~value(operand)
        case Select(condition=condition, then=then, otherwise=otherwise):
            return torch.where(value(condition), value(then), value(otherwise))
        case Call(function=function, arguments=parts):
            return _call(function, [value(part) for part in parts])
    raise TypeError(f"cannot evaluate {node!r}")


def _tensors(*values: Any) -> list[torch.Tensor]:
    return [torch.as_tensor(value) for value in values]


def _call(function: str, values: list[Any]) -> Any:
    if function in ("min", "max"):
        result = values[0]
        for other in values[1:]:
            result = (torch.minimum if function == "min" else torch.maximum)(*_promoted(result, other))
        return result
    if function == "floor":
        return torch.floor(values[0]).to(torch.int64) if values[0].is_floating_point() else values[0]
    if function == "abs":
        return torch.abs(values[0])
    return getattr(torch, function)(values[0].to(torch.float64))


def _promoted(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = torch.promote_types(a.dtype, b.dtype)
    return torch.broadcast_tensors(a.to(dtype), b.to(dtype))  # type: ignore[return-value]


def _element(tensor: torch.Tensor, indices: list[torch.Tensor]) -> torch.Tensor:
    """``tensor`` at ``indices``, each clamped to its dimension."""
    clamped = [index.to(tensor.device).clamp(0, size - 1) for index, size in zip(indices, tensor.shape, strict=True)]
    value = tensor[tuple(torch.broadcast_tensors(*clamped))]
    return value.to(torch.float64) if value.is_floating_point() else value

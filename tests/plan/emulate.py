"""The loops and the mask of a generated kernel, followed step by step on small sizes.

``visits`` is templates/parts/keys.j2 in Python: it must change when that file does. ``written_mask`` and
``written_bounds`` run the very text that goes into a kernel, with torch standing in for Triton.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import torch

from attngen.config import Config
from attngen.plan.attention import AttentionPlan
from attngen.plan.forward import ForwardPlan
from attngen.plan.numbers import evaluate
from attngen.source.context import forward_context
from tests.plan.strategies import Sizes

Step = tuple[int, bool]  # first key of a tile of keys, and whether it is masked


def tile_values(sizes: Sizes, tile: int) -> dict[str, int]:
    """What a program knows of its tile of queries."""
    return {
        "i_first": tile * sizes.block_q + sizes.offset,
        "i_last": min(tile * sizes.block_q + sizes.block_q, sizes.seq_q) - 1 + sizes.offset,
        "key_first": max(sizes.key_first, 0),
        "key_end": min(sizes.key_end, sizes.seq_k),
        "prefix": sizes.prefix,
    }


def steps_of(loops: Iterable[Any], number: Callable[[Any], int], step: int, split_masks: bool = True) -> list[Step]:
    """The tiles that a program goes over, in order; ``number`` is the value of a bound of a loop."""
    out: list[Step] = []
    covered = None
    for loop in loops:
        first, end = number(loop.outer_first), number(loop.outer_end)
        if covered is not None:
            first = max(first, covered)
        if not loop.inner_end or not split_masks:
            out += [(key, True) for key in range(first, end, step)]
        else:
            lead = -(-max(number(loop.inner_first) - first, 0) // step) * step
            full_first = first + lead
            full_end = full_first + max(number(loop.inner_end) - full_first, 0) // step * step
            out += [(key, True) for key in range(first, min(full_first, end), step)]
            out += [(key, False) for key in range(full_first, full_end, step)]
            out += [(key, True) for key in range(full_end, end, step)]
        covered = first + -(-max(end - first, 0) // step) * step
    return out


def visits(plan: ForwardPlan, sizes: Sizes, tile: int) -> list[Step]:
    """The tiles of keys that one program goes over, in order."""
    values = tile_values(sizes, tile)
    return steps_of(plan.loops, lambda bound: int(evaluate(bound, values)), sizes.block_n, sizes.split_masks)


def context_of(plan: ForwardPlan, sizes: Sizes, pack: int = 1) -> dict[str, Any]:
    structure = {"loads": "pointer", "PACK_HEADS": pack, "SPLIT_MASKS": sizes.split_masks}
    return forward_context(plan, Config(schedule="portable", BLOCK_N=64, num_warps=4, num_stages=2, **structure))


def written_bounds(text: str, sizes: Sizes, tile: int) -> int:
    """A loop bound as the kernel has it."""
    return int(eval(text, namespace(), dict(tile_values(sizes, tile))))


def written_mask(plan: ForwardPlan, sizes: Sizes, arguments: dict[str, Any], context: dict[str, Any]) -> torch.Tensor:
    """Which (query, key) pairs the kernel's mask lets through, bool (seq_q, seq_k)."""
    values: dict[str, Any] = {name: n for name, n in tile_values(sizes, 0).items() if not name.startswith("i_")}
    values |= {"i": torch.arange(sizes.seq_q) + sizes.offset, "j": torch.arange(sizes.seq_k)}
    return mask_as_written(plan, sizes, arguments, context, values)


def mask_as_written(
    plan: AttentionPlan, sizes: Sizes, arguments: dict[str, Any], context: dict[str, Any], values: dict[str, Any]
) -> torch.Tensor:
    """The mask of a tile whose positions and bounds are ``values``: rows are those that the kernel has as rows."""
    scope = namespace() | values
    scope |= {"h": torch.tensor(sizes.head), "batch": torch.tensor(sizes.batch)}
    for argument in plan.arguments:
        if argument.shape == "scalar":
            scope[f"{argument.name}_value"] = torch.tensor(arguments[argument.name])
        elif argument.shape == "tensor":
            value = arguments[argument.name]
            scope[f"{argument.name}_ptr"] = value
            for n in range(value.dim()):
                scope[f"{argument.name}_size_{n}"], scope[f"{argument.name}_stride_{n}"] = value.shape[n], n
    for bound in context["row_bounds"]:
        scope[bound.name] = eval(bound.value, scope)
    statements = ast.parse(textwrap.dedent("\n".join(context["visible_lines"])))
    exec(compile(ast.fix_missing_locations(_Uniting().visit(statements)), "mask", "exec"), scope)
    rows, columns = ("j", "i") if plan.kernel == "backward_kv" else ("i", "j")
    return torch.broadcast_to(scope["visible"], (len(scope[rows]), len(scope[columns])))


class _Uniting(ast.NodeTransformer):
    """``a |= b`` as ``a = a | b``: Triton makes a new tensor, where torch would write into one that may be narrower."""

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.Assign:
        before = ast.Name(node.target.id, ast.Load())  # type: ignore[union-attr]
        return ast.Assign([node.target], ast.BinOp(before, node.op, node.value))


class _Triton:
    """The few functions of triton.language that bounds and masks are written with."""

    int32 = torch.int32

    @staticmethod
    def maximum(a: Any, b: Any) -> torch.Tensor:
        return torch.maximum(*_alike(a, b))

    @staticmethod
    def minimum(a: Any, b: Any) -> torch.Tensor:
        return torch.minimum(*_alike(a, b))

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> torch.Tensor:
        return torch.where(torch.as_tensor(condition), *_alike(a, b))

    @staticmethod
    def abs(a: Any) -> torch.Tensor:
        return torch.abs(torch.as_tensor(a))

    @staticmethod
    def floor(a: Any) -> torch.Tensor:
        return torch.floor(torch.as_tensor(a))


def _alike(a: Any, b: Any) -> tuple[torch.Tensor, ...]:
    return torch.broadcast_tensors(torch.as_tensor(a), torch.as_tensor(b))


def _floor_div(a: Any, b: Any) -> torch.Tensor:
    return torch.div(torch.as_tensor(a), torch.as_tensor(b), rounding_mode="floor")


def _element(tensor: torch.Tensor, *parts: Any) -> torch.Tensor:
    """The template's clamped load: an index, a size and (here) the number of the dimension each."""
    indices = [torch.as_tensor(parts[n]).clamp(0, parts[n + 1] - 1) for n in range(0, len(parts), 3)]
    return tensor[tuple(torch.broadcast_tensors(*indices))]


def namespace() -> dict[str, Any]:
    elements = {f"element_{rank}": _element for rank in range(1, 5)}
    return {"tl": _Triton, "floor_div": _floor_div, "float": float, **elements}

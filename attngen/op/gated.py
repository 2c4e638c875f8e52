"""Launching the sum of branches: arguments bound once a signature of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from attngen.config import Config
from attngen.errors import CallError
from attngen.op.bound import Bound, compiled_of
from attngen.op.launch import Kept, signature_of
from attngen.plan.gated import GatedPlan
from attngen.source import render
from attngen.source.gated import result_pointers

MAX_GRID = 2**31 - 1


class GatedLauncher:
    """One config of a plan, ready to be called with tensors of any lengths.

    A call takes the branches' results, each (batch, heads, seq_q, v dim) with the same strides and a unit last one, and
    gates, float32 (batch, heads, seq_q, branches), any strides; it returns their sum, laid out like them. Under
    TRITON_INTERPRET=1 it takes CPU tensors.
    """

    def __init__(self, plan: GatedPlan, config: Config) -> None:
        self.plan = plan
        self.config = config
        self.source = render(plan, config)
        self._kept: Kept[Bound | None] = Kept()

    def __call__(self, results: Sequence[torch.Tensor], gates: torch.Tensor) -> torch.Tensor:
        tensors = (*results, gates)
        key = signature_of(tensors)
        if key in self._kept:
            bound = self._kept[key]
        else:
            check_gated_call(self.plan, results, gates)
            bound = self._kept.keep(key, self._prepare(results[0], gates))
        out = torch.empty_like(results[0])
        if bound is not None:
            bound(*tensors, out)
        return out

    def sources(self) -> list[str]:
        """Digests of the texts that a call compiles."""
        return [self.source.digest]

    def compiled(self) -> list[tuple[str, Any]]:
        """What Triton has compiled for the calls so far, one a specialisation, each with its text's digest."""
        return compiled_of(self._kept.values())

    def _prepare(self, result: torch.Tensor, gates: torch.Tensor) -> Bound | None:
        batch, heads, seq_q, _ = result.shape
        rows = batch * heads * seq_q
        if rows == 0:
            return None
        programs = -(-rows // int(self.config["BLOCK_M"] or 1))
        if programs > MAX_GRID:
            raise CallError(f"{programs} programs are more than a launch can have ({MAX_GRID}); split the batch")
        out = torch.empty_like(result, device="meta")
        values: dict[str, Any] = {"heads": heads, "seq_q": seq_q, "rows": rows, "stride_gn": gates.stride(3)}
        for letter, tensor in (("o", out), ("g", gates)):  # the stride of a single element is never used
            strides = (tensor.stride(n) if tensor.shape[n] > 1 else 0 for n in range(3))
            values |= {f"stride_{letter}{axis}": stride for axis, stride in zip("bhs", strides, strict=True)}
        names = [*result_pointers(self.plan), "gates_ptr", "out_ptr"]
        constants = {name: self.config[name] for name in self.source.constexprs}
        return Bound(self.source, result.device, programs, values, {name: n for n, name in enumerate(names)}, constants)


def check_gated_call(plan: GatedPlan, results: Sequence[torch.Tensor], gates: torch.Tensor) -> None:
    """CallError unless results and gates are those of the plan's kind."""
    count = len(plan.kind.branches)
    if len(results) != count:
        raise CallError(f"there are {len(results)} results; kind '{plan.kind.name}' has {count} branches")
    first = results[0]
    for branch, result in zip(plan.kind.branches, results, strict=True):
        if result.shape != first.shape or result.stride() != first.stride() or result.device != first.device:
            raise CallError(
                f"the result of '{branch.name}' has shape {tuple(result.shape)} and strides {result.stride()}; "
                f"{tuple(first.shape)} and {first.stride()} are needed, as of the first"
            )
        if result.dtype != getattr(torch, plan.kind.dtype) or result.stride(-1) != 1:
            raise CallError(f"the result of '{branch.name}' is {result.dtype}; {plan.kind.dtype} is needed")
    wanted = (*first.shape[:3], count)
    if tuple(gates.shape) != wanted or gates.dtype != torch.float32 or gates.device != first.device:
        raise CallError(
            f"gates is {tuple(gates.shape)} of {gates.dtype} on {gates.device}; {wanted} of float32 on "
            f"{first.device} is needed"
        )

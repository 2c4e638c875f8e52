"""Launching a selection of blocks: queries and what blocks are scored by in, lists of blocks out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from attngen.config import Config
from attngen.errors import CallError
from attngen.op.bound import Bound, compiled_of
from attngen.op.launch import Kept, signature_of
from attngen.plan.block_select import BlockSelectPlan
from attngen.source import render

MAX_GRID = 2**31 - 1
POINTERS = ("q_ptr", "k_ptr", "block_first_ptr", "block_end_ptr", "lse_ptr", "key_first_ptr", "key_end_ptr", "out_ptr")
OF_PAID = ("lse", "key_first", "key_end")


class BlockSelectLauncher:
    """One config of a selection of blocks, ready to be called with tensors of any lengths.

    A call takes q (batch, heads, seq_q, dim) with any strides but a unit last, and the first block and the one past the
    last that each query may take, int32 (batch, seq_q). ``keys`` are the blocks' means, (batch, kv heads, blocks, dim);
    of a plan with a compressed branch its keys, (batch, kv heads, compressed, dim), and then a call takes that branch's
    lse, float32 (batch, heads, seq_q), and the first compressed key and the one past the last that each query sees,
    int32 (batch, seq_q). It returns int32 (batch, lists, seq_q, top_k): blocks in ascending order, then -1. A list is
    of each query head or of each KV head; ``out`` may be given, with any strides but a unit last.

    Blocks that no compressed key pays to have a score of 0 and are selected as others are: ``block_end`` says where
    blocks end. Under TRITON_INTERPRET=1 it takes CPU tensors.
    """

    def __init__(self, plan: BlockSelectPlan, config: Config) -> None:
        self.plan = plan
        self.config = config
        self.source = render(plan, config)
        self._kept: Kept[Bound | None] = Kept()

    def __call__(
        self,
        q: torch.Tensor,
        keys: torch.Tensor,
        block_first: torch.Tensor,
        block_end: torch.Tensor,
        *,
        lse: torch.Tensor | None = None,
        key_first: torch.Tensor | None = None,
        key_end: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        plan = self.plan
        if out is None:
            if q.dim() != 4:
                raise CallError(f"q is (batch, heads, seq_q, dim), but it is {tuple(q.shape)}")
            shape = (q.shape[0], q.shape[1] // plan.heads, q.shape[2], plan.blocks.top_k)
            out = torch.empty(shape, dtype=torch.int32, device=q.device)
        tensors = (q, keys, block_first, block_end, lse, key_first, key_end, out)
        key = signature_of(tensors)
        if key in self._kept:
            bound = self._kept[key]
        else:
            check_block_select_call(plan, *tensors)
            bound = self._kept.keep(key, self._prepare(q, keys, out))
        if bound is not None:
            bound(*tensors)
        return out

    def sources(self) -> list[str]:
        """Digests of the texts that a call compiles."""
        return [self.source.digest]

    def compiled(self) -> list[tuple[str, Any]]:
        """What Triton has compiled for the calls so far, one a specialisation, each with its text's digest."""
        return compiled_of(self._kept.values())

    def _prepare(self, q: torch.Tensor, keys: torch.Tensor, out: torch.Tensor) -> Bound | None:
        """The launch for tensors of these shapes and strides; None where there are no lists."""
        batch, lists, seq_q, _ = out.shape
        if 0 in (batch, lists, seq_q):
            return None
        programs = -(-seq_q // int(self.config["BLOCK_Q"] or 1)) * lists * batch
        if programs > MAX_GRID:
            raise CallError(f"{programs} programs are more than a launch can have ({MAX_GRID}); split the batch")
        values: dict[str, int] = {"batches": batch, "lists": lists, "seq_q": seq_q}
        values |= {"blocks": keys.shape[2], "compressed": keys.shape[2]}
        for letter, tensor in (("q", q), ("k", keys), ("o", out)):  # the stride of a single element is never used
            strides = (tensor.stride(n) if tensor.shape[n] > 1 else 0 for n in range(3))
            values |= {f"stride_{letter}{axis}": stride for axis, stride in zip("bhs", strides, strict=True)}
        constants = {name: self.config[name] for name in self.source.constexprs}
        places = {name: n for n, name in enumerate(POINTERS)}
        return Bound(self.source, q.device, programs, values, places, constants)


def check_block_select_call(
    plan: BlockSelectPlan,
    q: torch.Tensor,
    keys: torch.Tensor,
    block_first: torch.Tensor,
    block_end: torch.Tensor,
    lse: torch.Tensor | None,
    key_first: torch.Tensor | None,
    key_end: torch.Tensor | None,
    out: torch.Tensor,
) -> None:
    """CallError unless the tensors are what the plan takes."""
    kind = plan.kind
    if q.dim() != 4 or keys.dim() != 4:
        raise CallError(
            f"q is (batch, heads, seq_q, dim) and keys (batch, kv heads, keys, dim), but they are {tuple(q.shape)} and "
            f"{tuple(keys.shape)}"
        )
    batch, heads, seq_q, _ = q.shape
    group, dim = kind.heads.group, kind.head_dim.qk
    if heads % group:
        raise CallError(f"q has {heads} heads; {group} share a KV head, so a multiple of {group} is needed")
    of_paid = dict(zip(OF_PAID, (lse, key_first, key_end), strict=True))
    _check_given(plan, of_paid)
    rows = (batch, seq_q)
    expected: dict[str, tuple[torch.Tensor | None, Sequence[int], str]] = {
        "q": (q, (batch, heads, seq_q, dim), kind.torch_dtype),
        "keys": (keys, (batch, heads // group, keys.shape[2], dim), kind.torch_dtype),
        "block_first": (block_first, rows, "int32"),
        "block_end": (block_end, rows, "int32"),
        "lse": (lse, (batch, heads, seq_q), "float32"),
        "key_first": (key_first, rows, "int32"),
        "key_end": (key_end, rows, "int32"),
        "out": (out, (batch, heads // plan.heads, seq_q, plan.blocks.top_k), "int32"),
    }
    for name, (tensor, shape, dtype) in expected.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape or tensor.dtype != getattr(torch, dtype):
            raise CallError(f"{name} must be {shape} in {dtype}, but is {tuple(tensor.shape)} in {tensor.dtype}")
        if tensor.device != q.device:
            raise CallError(f"{name} is on {tensor.device}, and q on {q.device}")
        if name in ("q", "keys", "out"):
            if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
                raise CallError(f"{name} must have a last stride of 1, but its strides are {tuple(tensor.stride())}")
        elif not tensor.is_contiguous():
            raise CallError(f"{name} must be contiguous, but its strides are {tuple(tensor.stride())}")


def _check_given(plan: BlockSelectPlan, of_paid: dict[str, torch.Tensor | None]) -> None:
    """A compressed branch's results are given where there is one, and only there."""
    for name, tensor in of_paid.items():
        if (tensor is not None) != (plan.compressed is not None):
            whose = "by their means" if plan.compressed is None else f"by branch '{plan.compressed.name}'"
            needed = "None" if plan.compressed is None else "a tensor"
            raise CallError(f"kind '{plan.kind.name}' has its blocks scored {whose}: {needed} is needed for {name}")

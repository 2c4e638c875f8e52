"""Launching one config of a plan: arguments bound once a shape, then as little Python as possible."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import triton

from attngen.config import Config
from attngen.errors import CallError
from attngen.op.checks import check_call, keywords_of, ordered_keywords
from attngen.plan.forward import ForwardPlan
from attngen.source import load_source, render

MAX_GRID = 2**31 - 1
MAX_KEPT_SHAPES = 4096  # prepared launches of one op


class Descriptor:
    """A tensor as the copy engine is told of it; what Triton's launcher reads of a TensorDescriptor."""

    __slots__ = ("base", "block_shape", "padding", "shape", "strides")

    def __init__(self, base: torch.Tensor, block_shape: list[int]) -> None:
        self.base = base
        self.shape = list(base.shape)
        self.strides = list(base.stride())
        self.block_shape = block_shape
        self.padding = "zero"


def empty_outputs(q: torch.Tensor, v_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Uninitialised out, laid out like q (heads before sequence, or after it), and lse."""
    batch, heads, seq_q, _ = q.shape
    if q.stride(1) < q.stride(2) and seq_q > 1:
        out = q.new_empty((batch, seq_q, heads, v_dim)).transpose(1, 2)
    else:
        out = q.new_empty((batch, heads, seq_q, v_dim))
    return out, q.new_empty((batch, heads, seq_q), dtype=torch.float32)


def signature_of(tensors: Sequence[Any]) -> tuple:
    """What a prepared launch depends on: shapes, strides, dtypes, devices, and each tensor's alignment to 16 bytes."""
    key: list[Any] = []
    unaligned = 0  # a bit a tensor: compiled code assumes of each what was so when it was compiled
    for tensor in tensors:
        if isinstance(tensor, torch.Tensor):
            key += (tensor.shape, tensor.stride(), tensor.dtype, tensor.get_device())
            unaligned = unaligned * 2 + (tensor.data_ptr() & 15 != 0)
        else:
            key.append(tensor is None)
    key.append(unaligned)
    return tuple(key)


class Kept(dict[tuple, "Prepared"]):
    """Prepared launches by signature; all are forgotten when there are too many."""

    def keep(self, key: tuple, prepared: Prepared) -> Prepared:
        if len(self) >= MAX_KEPT_SHAPES:
            self.clear()
        self[key] = prepared
        return prepared


class Launcher:
    """One config of a plan, ready to be called with tensors of any lengths.

    A call takes q (batch, heads, seq_q, qk dim), k (batch, kv heads, seq_k, qk dim), v (batch, kv heads, seq_k,
    v dim) and the kind's keywords, and returns (out, lse). Under TRITON_INTERPRET=1 it takes CPU tensors.
    """

    def __init__(self, plan: ForwardPlan, config: Config) -> None:
        self.plan = plan
        self.config = config
        self.source = render(plan, config)
        self.function = load_source(self.source)
        self._kept = Kept()

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **keywords: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        extras = ordered_keywords(self.plan, keywords)
        check_call(self.plan, q, k, v, dict(zip(keywords_of(self.plan), extras, strict=True)), any_heads=True)
        key = signature_of((q, k, v, *extras))
        prepared = self._kept.get(key)
        if prepared is None:
            prepared = self._kept.keep(key, self.prepare(q, k, v, extras))
        return prepared(q, k, v, extras)

    def prepare(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extras: Sequence[Any]) -> Prepared:
        """The launch for tensors of these shapes, strides and alignments."""
        return Prepared(self, q, k, v, extras)


class Prepared:
    """A launch whose every argument but the pointers is known."""

    def __init__(
        self, launcher: Launcher, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extras: Sequence[Any]
    ) -> None:
        plan, config = launcher.plan, launcher.config
        self.function = launcher.function
        self.v_dim = plan.kind.head_dim.v
        self.device = q.device
        self.empty = 0 in (q.shape[0], q.shape[2], k.shape[2])
        self.grid = _grid(plan, config, q)
        self.options = {name: config[name] for name in launcher.source.constexprs}
        self.options |= {name: config[name] for name in ("num_warps", "num_stages", "maxnreg") if config.get(name)}
        parameters = launcher.source.parameters
        self.arguments = _constant_arguments(plan, config, parameters, q, k, v, extras)
        self.pointers = [
            (parameters.index(name), source) for source, name in _pointer_parameters(plan, config) if name in parameters
        ]
        self.scalars = [
            (parameters.index(f"{argument.name}_value"), 3 + n)
            for n, argument in enumerate(plan.arguments)
            if argument.shape == "scalar"
        ]
        self.constants = [config[name] for name in launcher.source.constexprs]
        self._compiled: Any = None

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extras: Sequence[Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = empty_outputs(q, self.v_dim)
        if self.empty:
            return out.zero_(), lse.fill_(float("-inf"))
        tensors = (q, k, v, *extras, out, lse)
        compiled = self._compiled
        if compiled is None or self.device.index != torch._C._cuda_getDevice():
            self._first(tensors)
            return out, lse
        arguments = self.arguments.copy()
        for position, source in self.pointers:
            tensor = tensors[source]
            if tensor is not None:
                held = arguments[position]
                if held is None:
                    arguments[position] = tensor.data_ptr()
                else:
                    held.base = tensor
        for position, source in self.scalars:
            arguments[position] = tensors[source]
        stream = torch._C._cuda_getCurrentRawStream(self.device.index)
        compiled.run(
            self.grid,
            1,
            1,
            stream,
            compiled.function,
            compiled.packed_metadata,
            None,
            None,
            None,
            *arguments,
            *self.constants,
        )
        return out, lse

    def _first(self, tensors: Sequence[Any]) -> None:
        """Launch through Triton's own front end, which compiles what it has not compiled."""
        arguments = self.arguments.copy()
        for position, source in self.pointers:
            held = arguments[position]
            if held is None:
                arguments[position] = tensors[source]
            else:
                held.base = tensors[source]
        for position, source in self.scalars:
            arguments[position] = tensors[source]
        arguments = [_official(argument) for argument in arguments]
        if self.device.type != "cuda":
            self.function[(self.grid,)](*arguments, **self.options)
            return
        with torch.cuda.device(self.device):
            compiled = self.function[(self.grid,)](*arguments, **self.options)
        if _direct_launch_known():
            self._compiled = compiled


def _official(argument: Any) -> Any:
    if not isinstance(argument, Descriptor):
        return argument
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor(argument.base, argument.shape, argument.strides, argument.block_shape)


def _direct_launch_known() -> bool:
    """Whether this Triton's compiled kernels are called the way ``Prepared`` calls them."""
    return triton.__version__.startswith("3.6.") and os.environ.get("ATTNGEN_SAFE_LAUNCH") != "1"


def _grid(plan: ForwardPlan, config: Config, q: torch.Tensor) -> int:
    """Programs of one launch."""
    batch, heads, seq_q, _ = q.shape
    block_m, pack = int(config["BLOCK_M"] or 0), int(config.get("PACK_HEADS") or 1)
    if config["schedule"] == "window":
        programs = -(-seq_q // block_m) * batch * (heads // plan.kind.heads.group)
    else:
        programs = -(-seq_q // (block_m // pack)) * batch * (heads // pack)
    if programs > MAX_GRID:
        raise CallError(f"{programs} programs are more than a launch can have ({MAX_GRID}); split the batch")
    return programs


def _pointer_parameters(plan: ForwardPlan, config: Config) -> list[tuple[int, str]]:
    """(index into q, k, v, extras, out, lse; parameter) of every tensor that a launch passes."""
    names = [(0, "q_ptr")]
    for source, name, chunks in ((1, "k", plan.qk_chunks), (2, "v", plan.v_chunks)):
        if config.get("loads") == "descriptor":
            names += [(source, f"{name}_desc_{c.index}") for c in chunks]
        else:
            names.append((source, f"{name}_ptr"))
    extras = keywords_of(plan)
    names += [(3 + n, f"{name}_ptr") for n, name in enumerate(extras)]
    return [*names, (3 + len(extras), "out_ptr"), (4 + len(extras), "lse_ptr")]


def _constant_arguments(
    plan: ForwardPlan,
    config: Config,
    parameters: Sequence[str],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    extras: Sequence[Any],
) -> list[Any]:
    """The kernel's arguments with None for every pointer, and descriptors without their base."""
    values: dict[str, Any] = {"heads": q.shape[1], "seq_q": q.shape[2], "seq_k": k.shape[2]}
    out, _ = empty_outputs(q, plan.kind.head_dim.v)
    for name, tensor in (("q", q), ("k", k), ("v", v), ("o", out)):
        # The stride of a single element is never used; 0 keeps it from asking for a compilation of its own.
        values |= {
            f"stride_{name}{axis}": tensor.stride(n) if tensor.shape[n] > 1 else 0 for n, axis in enumerate("bhs")
        }
    for name, tensor, chunks in (("k", k, plan.qk_chunks), ("v", v, plan.v_chunks)):
        for c in chunks:
            values[f"{name}_desc_{c.index}"] = (
                Descriptor(tensor, [1, 1, int(config["BLOCK_N"] or 0), c.width])
                if config.get("loads") == "descriptor"
                else None
            )
    by_name: Mapping[str, Any] = dict(zip(keywords_of(plan), extras, strict=True))
    for argument in plan.arguments:
        if argument.shape == "tensor":
            tensor = by_name[argument.name]
            for n in range(argument.rank):
                values[f"{argument.name}_size_{n}"] = tensor.shape[n]
                values[f"{argument.name}_stride_{n}"] = tensor.stride(n)
    return [values.get(name) for name in parameters]

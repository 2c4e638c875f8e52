"""Launching one config of a plan: arguments bound once a shape, then as little Python as possible."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeVar

import torch

from attngen.config import Config
from attngen.op import ready
from attngen.op.arguments import constant_arguments, document_count, empty_outputs, pointer_parameters, tile_count
from attngen.op.checks import check_call, keywords_of, ordered_keywords
from attngen.op.descriptor import Descriptor
from attngen.op.direct import Direct, direct_launch
from attngen.op.tickets import Tickets
from attngen.op.turned import Turning
from attngen.plan.boxes import is_turned
from attngen.plan.forward import ForwardPlan
from attngen.source import Source, load_source, render, render_turning

with suppress(ImportError):  # what kernels for Hopper import: now, and not in a first call
    import triton.experimental.gluon.nvidia.hopper  # noqa: F401

MAX_KEPT_SHAPES = 4096  # prepared launches of one op
Held = TypeVar("Held")


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


class Kept(dict[tuple, Held]):
    """Prepared launches by signature; all are forgotten when there are too many."""

    def keep(self, key: tuple, prepared: Held) -> Held:
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
        self.tickets = Tickets()
        self._kept: Kept[Prepared] = Kept()

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

    def sources(self) -> list[str]:
        """Digests of the texts that a call compiles."""
        turning = [render_turning(self.plan).digest] if is_turned(self.plan, self.config) else []
        return [self.source.digest, *turning]

    def compiled(self) -> list[tuple[str, Any]]:
        """What Triton has compiled for the calls so far, one a specialisation, each with its text's digest."""
        made: dict[str, tuple[str, Any]] = {}
        for prepared in self._kept.values():
            for source, one in prepared.all_compiled():
                made[one.hash] = (source.digest, one)
        return list(made.values())

    def prepare(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extras: Sequence[Any]) -> Prepared:
        """The launch for tensors of these shapes, strides and alignments."""
        return Prepared(self, q, k, v, extras)


class Prepared:
    """A launch whose every argument but the pointers is known."""

    def __init__(
        self, launcher: Launcher, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extras: Sequence[Any]
    ) -> None:
        plan, config = launcher.plan, launcher.config
        self.source = launcher.source
        self.function = launcher.function
        self.v_dim = plan.kind.head_dim.v
        self.out_dtype = getattr(torch, plan.kind.out_dtype)
        self.device = q.device
        self.empty = 0 in (q.shape[0], q.shape[2], k.shape[2])
        self.grid = tile_count(plan, config, q, document_count(plan, dict(zip(keywords_of(plan), extras, strict=True))))
        self.tickets = launcher.tickets if "ticket_ptr" in launcher.source.parameters else None
        if self.tickets is not None and q.device.type == "cuda":
            self.grid = min(self.grid, torch.cuda.get_device_properties(q.device).multi_processor_count)
        self.options = {name: config[name] for name in launcher.source.constexprs} | launcher.source.options
        parameters = launcher.source.parameters
        self.ticket_position = parameters.index("ticket_ptr") if self.tickets is not None else -1
        self.arguments = constant_arguments(plan, config, parameters, q, k, v, extras)
        self.pointers = [
            (parameters.index(name), source) for source, name in pointer_parameters(plan, config) if name in parameters
        ]
        self.scalars = [
            (parameters.index(f"{argument.name}_value"), 3 + n)
            for n, argument in enumerate(plan.arguments)
            if argument.shape == "scalar"
        ]
        self.constants = [config[name] for name in launcher.source.constexprs]
        self.turning = Turning(plan, v) if is_turned(plan, config) and not self.empty else None
        self.compiled: Any = None
        self._direct: Direct | None = None

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extras: Sequence[Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = empty_outputs(q, self.v_dim, self.out_dtype)
        if self.empty:
            return out.zero_(), lse.fill_(float("-inf"))
        tensors = (q, k, v, *extras, out, lse)
        direct = self._direct
        if direct is None or self.device.index != torch._C._cuda_getDevice():
            self._first(tensors)
            return out, lse
        stream = torch._C._cuda_getCurrentRawStream(self.device.index)
        if self.turning is not None:
            tensors += (self.turning(v, extras[-1]),)
        arguments, places = direct.arguments(), direct.places
        for position, source in self.pointers:
            tensor = tensors[source]
            if tensor is not None:
                maps = direct.maps.get(position)
                address = tensor.data_ptr()
                arguments[places[position]] = address if maps is None else maps[address]
        for position, source in self.scalars:
            arguments[places[position]] = tensors[source]
        if self.tickets is not None:
            arguments[places[self.ticket_position]] = self.tickets.of(self.device, stream).data_ptr()
        direct(stream, arguments)
        return out, lse

    def all_compiled(self) -> list[tuple[Source, Any]]:
        """What a call has compiled, by its text."""
        turning = [] if self.turning is None else [(self.turning.bound.source, self.turning.bound.compiled)]
        return [(source, one) for source, one in [(self.source, self.compiled), *turning] if one is not None]

    def _first(self, tensors: Sequence[Any]) -> None:
        """Launch through Triton's own front end, which compiles what it has not compiled."""
        if self.device.type == "cuda":
            ready.wait()
        if self.turning is not None:
            tensors = (*tensors, self.turning(tensors[2], tensors[-3]))
        arguments = self.arguments.copy()
        for position, source in self.pointers:
            held = arguments[position]
            arguments[position] = tensors[source] if held is None else held.official(tensors[source])
        for position, source in self.scalars:
            arguments[position] = tensors[source]
        if self.device.type != "cuda":
            self.function[(self.grid,)](*arguments, **self.options)
            return
        with torch.cuda.device(self.device):
            if self.tickets is not None:
                stream = torch._C._cuda_getCurrentRawStream(self.device.index)
                arguments[self.ticket_position] = self.tickets.of(self.device, stream)
            self.compiled = self.function[(self.grid,)](*arguments, **self.options)
        descriptors = [n for n, argument in enumerate(self.arguments) if isinstance(argument, Descriptor)]
        self._direct = direct_launch(self.compiled, self.grid, [*self.arguments, *self.constants], descriptors)

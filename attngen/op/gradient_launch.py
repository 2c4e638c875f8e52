"""Launching the kernels of a backward pass: arguments bound once a signature of tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from attngen.config import Config
from attngen.errors import CallError
from attngen.op.arguments import MAX_GRID, document_count, length_values, list_values, tiles_in
from attngen.op.block_lists import turned_lists
from attngen.op.bound import Bound, compiled_of
from attngen.op.checks import keywords_of
from attngen.op.descriptor import Descriptor, can_describe
from attngen.op.launch import Kept, signature_of
from attngen.plan.backward import BackwardPlan
from attngen.plan.boxes import is_gluon
from attngen.plan.hopper_gradients import gradient_boxes
from attngen.source import render
from attngen.source.backward import STRIDED

HEADS_DIM, SEQUENCE_DIM = 1, 2


class Rows(NamedTuple):
    """What the other kernels need of each row, and the shares of the sink's gradient."""

    log_sum: torch.Tensor  # (batch, heads, seq_q) float32, base-2 log of the denominator; inf for rows that see no key
    delta: torch.Tensor  # (batch, heads, seq_q) float32
    sink_shares: torch.Tensor | None  # (batch, heads, tiles) float32


class Call(NamedTuple):
    """A call whose gradients are made, and the gradient of its result."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    dout: torch.Tensor
    extras: Sequence[Any]  # in the order of the op's keywords

    def keywords(self, plan: BackwardPlan) -> dict[str, Any]:
        """What was given beside q, k and v, by name."""
        return dict(zip(keywords_of(plan), self.extras, strict=True))

    def can_be_described(self) -> bool:
        """Whether the copy engine takes what the kernels read."""
        return all(can_describe(tensor) for tensor in (self.q, self.k, self.v, self.dout))


class Strip(NamedTuple):
    """Some heads, counted over all sequences, and some neighbouring queries, from one that begins a tile."""

    first_head: int
    heads: int
    first_query: int
    queries: int


def by_key(plan: BackwardPlan, call: Call) -> Call:
    """The call with the lists of blocks that see each block of keys, in the place of those that queries see."""
    if plan.kind.blocks is None:
        return call
    given = call.keywords(plan)
    columns = -(-call.k.shape[2] // plan.kind.blocks.size)
    count, index = turned_lists(given["block_count"], given["block_index"], columns)
    given |= {"block_count": count.contiguous(), "block_index": index.contiguous()}
    return call._replace(extras=tuple(given.values()))


def empty_like_rows(tensor: torch.Tensor) -> torch.Tensor:
    """Uninitialised, of a tensor's shape: heads before sequence, or after it, as its strides have them."""
    batch, heads, length, dim = tensor.shape
    if tensor.stride(HEADS_DIM) < tensor.stride(SEQUENCE_DIM) and length > 1:
        return tensor.new_empty((batch, length, heads, dim)).transpose(1, 2)
    return tensor.new_empty(tensor.shape)


class GradientLauncher:
    """One config of one kernel of a backward pass; binds it to tensors."""

    def __init__(self, plan: BackwardPlan, config: Config) -> None:
        self.plan = plan
        self.config = config
        self.source = render(plan, config)
        self._kept: Kept[Bound] = Kept()

    def sources(self) -> list[str]:
        """Digests of the texts that a call compiles."""
        return [self.source.digest]

    def compiled(self) -> list[tuple[str, Any]]:
        """What Triton has compiled for the calls so far, one a specialisation, each with its text's digest."""
        return compiled_of(self._kept.values())

    def tile(self, name: str) -> int:
        return int(self.config[name] or 1)

    def launch(
        self,
        programs: int,
        tensors: Mapping[str, Any],
        sizes: Mapping[str, int],
        numbers: Mapping[str, int] | None = None,
    ) -> None:
        """Launch with ``tensors`` by the names of the plan's parameters, without ``_ptr``; ``sizes`` and
        ``numbers``, which change from call to call, are by theirs."""
        changing = dict(numbers or {})
        given = tuple(tensors.values())
        key = (programs, signature_of(given))
        bound = self._kept.get(key)
        if bound is None:
            bound = self._kept.keep(key, self._bind(programs, tensors, sizes, tuple(changing)))
        bound(*given, numbers=(*given, *changing.values()))

    def _bind(
        self, programs: int, tensors: Mapping[str, Any], sizes: Mapping[str, int], changing: tuple[str, ...]
    ) -> Bound:
        if programs > MAX_GRID:
            raise CallError(f"{programs} programs are more than a launch can have ({MAX_GRID}); split the batch")
        values: dict[str, Any] = dict(sizes)
        for name, word in STRIDED[self.plan.kernel].items():
            tensor = tensors[name]  # the stride of a single element is never used
            values |= {
                f"stride_{word}{axis}": tensor.stride(n) if tensor.shape[n] > 1 else 0 for n, axis in enumerate("bhs")
            }
        for argument in self.plan.arguments:
            if argument.shape == "tensor" and argument.name in tensors:
                for n in range(argument.rank):
                    values[f"{argument.name}_size_{n}"] = tensors[argument.name].shape[n]
                    values[f"{argument.name}_stride_{n}"] = tensors[argument.name].stride(n)
        places = {f"{name}_ptr": n for n, name in enumerate(tensors)}
        if is_gluon(self.config):
            values["heads_together"] = self.config["HEADS_TOGETHER"]
            for name, box in gradient_boxes(self.plan, self.config).items():
                values[f"{name}_desc"] = Descriptor(tensors[name], box, gluon=True)
            places |= {f"{name}_desc": n for n, name in enumerate(tensors)}
        numbers = [*(f"{name}_value" for name in tensors), *changing]
        constants = {name: self.config[name] for name in self.source.constexprs}
        device = next(tensor.device for tensor in tensors.values() if isinstance(tensor, torch.Tensor))
        return Bound(self.source, device, programs, values, places, constants, numbers)


class RowsLauncher(GradientLauncher):
    """Prepares rows: takes out, its gradient, lse, the gradient of lse or None, and the sink or None."""

    def __call__(
        self,
        out: torch.Tensor,
        dout: torch.Tensor,
        lse: torch.Tensor,
        dlse: torch.Tensor | None = None,
        sink: torch.Tensor | None = None,
        *,
        sink_shares: bool = False,
    ) -> Rows:
        batch, heads, seq_q, _ = out.shape
        tiles = -(-seq_q // self.tile("BLOCK_M"))
        shares = lse.new_empty((batch, heads, tiles)) if sink_shares else None
        rows = Rows(torch.empty_like(lse), torch.empty_like(lse), shares)
        if out.numel():
            tensors = {"out": out, "dout": dout, "lse": lse, "dlse": dlse, "sink": sink, "dsink": shares}
            tensors |= {"row_log_sum": rows.log_sum, "row_delta": rows.delta}
            self.launch(tiles * heads * batch, tensors, {"heads": heads, "seq_q": seq_q})
        return rows


class OfPairs(GradientLauncher):
    """A kernel that goes over pairs of queries and keys: takes a ``Call``, and rows that were prepared."""

    def tensors(self, call: Call, rows: Rows) -> dict[str, Any]:
        """By the names of the kernel's parameters; numbers among them."""
        given = {"q": call.q, "k": call.k, "v": call.v, "dout": call.dout}
        given |= {"row_log_sum": rows.log_sum, "row_delta": rows.delta}
        return given | call.keywords(self.plan)

    def sizes(self, call: Call) -> dict[str, int]:
        """How many heads, queries, keys and documents there are."""
        given = call.keywords(self.plan)
        return length_values(self.plan, call.q, call.k, self.documents(call)) | list_values(given.get("block_index"))

    def documents(self, call: Call) -> int | None:
        return document_count(self.plan, call.keywords(self.plan))

    def sums(self, call: Call, wanted: Collection[int], length: int) -> dict[int, torch.Tensor]:
        """Room for the sums of the learned reads that are ``wanted``, by their numbers: (batch, heads, length)."""
        shape = (*call.q.shape[:2], length)
        made = (read.index for read in self.plan.learned if read.index in wanted)
        return {n: call.q.new_empty(shape, dtype=torch.float32) for n in made}


class QueriesLauncher(OfPairs):
    """Makes dq, and the sums over keys of learned reads."""

    def __call__(
        self, call: Call, rows: Rows, wanted: Collection[int] = ()
    ) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        batch, heads, seq_q, _ = call.q.shape
        dq, sums = empty_like_rows(call.q), self.sums(call, wanted, seq_q)
        if not call.k.numel():
            return dq.zero_(), {n: made.zero_() for n, made in sums.items()}
        if call.q.numel():
            results = {"dq": dq, **{f"drow_{n}": made for n, made in sums.items()}}
            programs = tiles_in(seq_q, self.tile("BLOCK_M"), self.documents(call)) * batch
            programs *= heads // self.plan.kind.heads.group if self.config["schedule"] == "hopper_window" else heads
            self.launch(programs, self.tensors(call, rows) | results, self.sizes(call))
        return dq, sums


class KeysLauncher(OfPairs):
    """Makes dk and dv, and the sums over queries of learned reads."""

    def __call__(
        self, call: Call, rows: Rows, wanted: Collection[int] = ()
    ) -> tuple[torch.Tensor, torch.Tensor, dict[int, torch.Tensor]]:
        batch, kv_heads, seq_k, _ = call.k.shape
        dk, dv, sums = empty_like_rows(call.k), empty_like_rows(call.v), self.sums(call, wanted, seq_k)
        if not call.q.numel():
            return dk.zero_(), dv.zero_(), {n: made.zero_() for n, made in sums.items()}
        if call.k.numel():
            results = {"dk": dk, "dv": dv, **{f"dcolumn_{n}": made for n, made in sums.items()}}
            programs = tiles_in(seq_k, self.tile("BLOCK_N"), self.documents(call)) * kv_heads * batch
            self.launch(programs, self.tensors(call, rows) | results, self.sizes(call))
        return dk, dv, sums


class ElementsLauncher(OfPairs):
    """Writes the shares of one learned read, a strip of queries of some heads at a time."""

    def __call__(self, call: Call, rows: Rows, index: int, strip: Strip, columns: int) -> torch.Tensor:
        """(heads of the strip, its queries, columns) float32; a place that no query sees holds 0."""
        made = call.q.new_zeros((strip.heads, strip.queries, columns), dtype=torch.float32)
        programs = -(-strip.queries // self.tile("BLOCK_M")) * strip.heads
        numbers = {"strip_first": strip.first_query, "strip_rows": strip.queries}
        numbers |= {"strip_head": strip.first_head, "strip_columns": columns}
        self.launch(programs, self.tensors(call, rows) | {f"delement_{index}": made}, self.sizes(call), numbers)
        return made

"""Launching the kernels of a backward pass: arguments bound once a signature of tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import torch

from attngen.config import Config
from attngen.errors import CallError
from attngen.op.arguments import (
    MAX_GRID,
    document_count,
    empty_rows,
    length_values,
    list_values,
    read_values,
    stride_values,
    tiles_in,
)
from attngen.op.block_lists import turned_lists
from attngen.op.bound import Bound, compiled_of
from attngen.op.descriptor import Descriptor, can_describe
from attngen.op.launch import Kept, signature_of
from attngen.plan.backward import BackwardPlan
from attngen.plan.boxes import is_gluon
from attngen.plan.hopper_gradients import gradient_boxes
from attngen.source import render
from attngen.source.backward import STRIDED

Sums = dict[int, torch.Tensor]  # of learned reads, by their numbers


class Rows(NamedTuple):
    """What the other kernels need of each row, and the shares of the sink's gradient."""

    log_sum: torch.Tensor  # (batch, heads, seq_q) float32, base-2 log of the denominator; inf for rows that see no key
    delta: torch.Tensor  # (batch, heads, seq_q) float32
    of_lse: torch.Tensor | None = None  # the same, what the gradient of lse takes of delta
    sink_shares: torch.Tensor | None = None  # (batch, heads, tiles) float32


class Call:
    """A call whose gradients are made, and the gradient of its result; ``given`` is what it had beside q, k and v, by
    the op's keywords in order."""

    __slots__ = ("dout", "given", "k", "q", "signature", "v")

    def __init__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dout: torch.Tensor, given: Mapping[str, Any]
    ) -> None:
        self.q, self.k, self.v, self.dout = q, k, v, dout
        self.given = given
        self.signature = signature_of((q, k, v, dout, *given.values()))

    def can_be_described(self) -> bool:
        """Whether the copy engine takes what the kernels read."""
        return all(can_describe(tensor) for tensor in (self.q, self.k, self.v, self.dout))


class Strip(NamedTuple):
    """Some heads, counted over all sequences, and some neighbouring queries, from one that begins a tile."""

    first_head: int
    heads: int
    first_query: int
    queries: int


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
        key: tuple,
        tensors: Mapping[str, Any],
        shape: Callable[[], tuple[int, Mapping[str, int]]],
        numbers: Mapping[str, int] | None = None,
    ) -> None:
        """Launch with ``tensors`` by the names of the plan's parameters, without ``_ptr``.

        ``key``: what the launch depends on, beside which tensors there are. ``shape``: programs, and sizes by the names
        of their parameters; asked for once a key. ``numbers``, which change from call to call, are by theirs.
        """
        changing = dict(numbers or {})
        given = tuple(tensors.values())
        bound = self._kept.get(key)
        if bound is None:
            bound = self._kept.keep(key, self._bind(*shape(), tensors, tuple(changing)))
        bound(*given, numbers=(*given, *changing.values()))

    def _bind(
        self, programs: int, sizes: Mapping[str, int], tensors: Mapping[str, Any], changing: tuple[str, ...]
    ) -> Bound:
        if programs > MAX_GRID:
            raise CallError(f"{programs} programs are more than a launch can have ({MAX_GRID}); split the batch")
        values: dict[str, Any] = dict(sizes)
        for name, word in STRIDED[self.plan.kernel].items():
            values |= stride_values(word, tensors[name])
        for argument in self.plan.arguments:
            if argument.shape == "tensor" and argument.name in tensors:
                values |= read_values(argument.name, tensors[argument.name])
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
    """Prepares rows: takes out, its gradient, lse, the gradient of lse or None, and the sink or None.

    ``keep_dlse``: also what the gradient of lse takes of delta, which sums over keys need. ``sink_shares``: also those.
    """

    def __call__(
        self,
        out: torch.Tensor,
        dout: torch.Tensor,
        lse: torch.Tensor,
        dlse: torch.Tensor | None = None,
        sink: torch.Tensor | None = None,
        *,
        keep_dlse: bool = False,
        sink_shares: bool = False,
    ) -> Rows:
        batch, heads, seq_q, _ = out.shape
        tiles = -(-seq_q // self.tile("BLOCK_M"))
        shares = lse.new_empty((batch, heads, tiles)) if sink_shares else None
        of_lse = torch.empty_like(lse) if keep_dlse and dlse is not None else None
        rows = Rows(torch.empty_like(lse), torch.empty_like(lse), of_lse, shares)
        if out.numel():
            tensors = {"out": out, "dout": dout, "lse": lse, "dlse": dlse, "sink": sink, "dsink": shares}
            tensors |= {"row_log_sum": rows.log_sum, "row_delta": rows.delta, "row_dlse": rows.of_lse}
            key = (signature_of((out, dout, lse, dlse, sink)), of_lse is None, shares is None)
            self.launch(key, tensors, lambda: (tiles * heads * batch, {"heads": heads, "seq_q": seq_q}))
        return rows


class OfPairs(GradientLauncher):
    """A kernel that goes over pairs of queries and keys: takes a ``Call``, and rows that were prepared."""

    def tensors(self, call: Call, rows: Rows) -> dict[str, Any]:
        """By the names of the kernel's parameters; numbers among them."""
        tensors = {"q": call.q, "k": call.k, "v": call.v, "dout": call.dout}
        of_rows = {"row_log_sum": rows.log_sum, "row_delta": rows.delta, "row_dlse": rows.of_lse}
        return {**tensors, **of_rows, **call.given}

    def sizes(self, call: Call) -> dict[str, int]:
        """How many heads, queries, keys and documents there are."""
        sizes = length_values(self.plan, call.q, call.k, document_count(self.plan, call.given))
        return sizes | list_values(call.given.get("block_index"))

    def blocks_of_keys(self, call: Call) -> int:
        """Programs of a kernel each of which has a block of keys of one KV head."""
        batch, kv_heads, seq_k, _ = call.k.shape
        return tiles_in(seq_k, self.tile("BLOCK_N"), document_count(self.plan, call.given)) * kv_heads * batch

    def sums(self, call: Call, wanted: Collection[int], length: int) -> Sums | None:
        """Room for the sums of the learned reads that are ``wanted``, by their numbers: (batch, heads, length)."""
        made = [read.index for read in self.plan.learned if read.index in wanted]
        if made and is_gluon(self.config):
            return None
        shape = (*call.q.shape[:2], length)
        return {n: call.q.new_empty(shape, dtype=torch.float32) for n in made}


class QueriesLauncher(OfPairs):
    """Makes dq, and the sums over keys of learned reads; None for them by schedules that make none of those wanted."""

    def __call__(self, call: Call, rows: Rows, wanted: Collection[int] = ()) -> tuple[torch.Tensor, Sums | None]:
        seq_q = call.q.shape[2]
        dq, sums = empty_rows(call.q), self.sums(call, wanted, seq_q)
        summed = sums or {}
        if not call.k.numel():
            return dq.zero_(), zeroed(sums)
        if call.q.numel():
            tensors = self.tensors(call, rows) | {"dq": dq, **{f"drow_{n}": made for n, made in summed.items()}}
            key = (call.signature, rows.of_lse is None, *summed)
            self.launch(key, tensors, lambda: (self.programs(call), self.sizes(call)))
        return dq, sums

    def programs(self, call: Call) -> int:
        batch, heads, seq_q, _ = call.q.shape
        together = self.plan.kind.heads.group if self.config["schedule"] == "hopper_window" else 1
        tiles = tiles_in(seq_q, self.tile("BLOCK_M"), document_count(self.plan, call.given))
        return tiles * batch * (heads // together)


class KeysLauncher(OfPairs):
    """Makes dk and dv, and the sums over queries of learned reads; None for them by schedules that make none of those
    wanted."""

    def __call__(
        self, call: Call, rows: Rows, wanted: Collection[int] = ()
    ) -> tuple[torch.Tensor, torch.Tensor, Sums | None]:
        seq_k = call.k.shape[2]
        dk, dv, sums = empty_rows(call.k), empty_rows(call.v), self.sums(call, wanted, seq_k)
        summed = sums or {}
        if not call.q.numel():
            return dk.zero_(), dv.zero_(), zeroed(sums)
        if call.k.numel():
            if self.plan.kind.blocks is not None:
                call = self._turned(call, self.plan.kind.blocks.size)
            tensors = self.tensors(call, rows) | {"dk": dk, "dv": dv}
            tensors |= {f"dcolumn_{n}": made for n, made in summed.items()}
            self.launch((call.signature, *summed), tensors, lambda: (self.blocks_of_keys(call), self.sizes(call)))
        return dk, dv, sums

    def _turned(self, call: Call, size: int) -> Call:
        """The call with the lists of blocks that see each block of keys, in the place of those that queries see."""
        columns = -(-call.k.shape[2] // size)
        count, index = turned_lists(call.given["block_count"], call.given["block_index"], columns)
        lists = {"block_count": count, "block_index": index}
        return Call(call.q, call.k, call.v, call.dout, {**call.given, **lists})


class FusedLauncher(OfPairs):
    """Makes dk, dv and dq. Beside them it uses float32 as many as q has elements, and an int32 a tile of queries."""

    def __call__(
        self, call: Call, rows: Rows, wanted: Collection[int] = ()
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Sums]:
        dk, dv, dq = (empty_rows(tensor) for tensor in (call.k, call.v, call.q))
        if not (call.q.numel() and call.k.numel()):
            return dk.zero_(), dv.zero_(), dq.zero_(), {}
        placed = any(call.given.get(name) is not None for name in ("offsets", "key_range"))
        if placed or call.q.shape[2] > call.k.shape[2]:
            dq.zero_()  # of queries that see no key nothing is written
        batch, heads, seq_q, dim = call.q.shape
        block = self.tile("BLOCK_M")
        tiles = batch * heads * -(-seq_q // block)
        tensors = self.tensors(call, rows) | {"dk": dk, "dv": dv, "dq": dq}
        tensors["sums"] = call.q.new_empty(tiles * block * dim, dtype=torch.float32)
        tensors["turns"] = call.q.new_zeros(tiles, dtype=torch.int32)
        self.launch(call.signature, tensors, lambda: (self.blocks_of_keys(call), self.sizes(call)))
        return dk, dv, dq, {}


class ElementsLauncher(OfPairs):
    """Writes the shares of one learned read, a strip of queries of some heads at a time."""

    def __call__(self, call: Call, rows: Rows, index: int, strip: Strip, columns: int) -> torch.Tensor:
        """(heads of the strip, its queries, columns) float32; a place that no query sees holds 0."""
        made = call.q.new_zeros((strip.heads, strip.queries, columns), dtype=torch.float32)
        programs = -(-strip.queries // self.tile("BLOCK_M")) * strip.heads
        numbers = {"strip_first": strip.first_query, "strip_rows": strip.queries}
        numbers |= {"strip_head": strip.first_head, "strip_columns": columns}
        tensors = self.tensors(call, rows) | {f"delement_{index}": made}
        self.launch((call.signature, index, programs), tensors, lambda: (programs, self.sizes(call)), numbers)
        return made


def zeroed(sums: Sums | None) -> Sums | None:
    return None if sums is None else {n: made.zero_() for n, made in sums.items()}

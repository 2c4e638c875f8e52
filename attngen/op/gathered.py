"""Launching attention over listed keys: arguments bound once a signature of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from attngen.config import Config
from attngen.errors import CallError
from attngen.op.arguments import empty_outputs
from attngen.op.bound import Bound, compiled_of
from attngen.op.descriptor import Descriptor
from attngen.op.expected import check_expected, check_lists, check_rows, check_sink
from attngen.op.launch import Kept, signature_of
from attngen.op.tickets import Tickets
from attngen.plan.boxes import is_gluon
from attngen.plan.gathered import GatheredPlan
from attngen.plan.space.gathered import EVERY
from attngen.source import render
from attngen.source.gathered import gathered_boxes

MAX_TILES = 2**30  # of heads, of all queries
MAX_TOP_K = 2**26  # kernels count tiles of keys in 20 bits
ALIGNED_BYTES = 16  # that the copy engine asks for
ALIGNED_STRIDE = 16  # elements: so much the compiler may know of a number, and 8 of them are one asynchronous copy
# Tensors of a call in the order in which a launch takes them.
POINTERS = ("q_ptr", "k_ptr", "v_ptr", "indices_ptr", "sink_ptr", "offsets_ptr", "key_range_ptr", "topk_length_ptr")
RESULTS = ("out_ptr", "lse_ptr", "max_ptr", "ticket_ptr")  # and what programs draw their turns from


class GatheredLauncher:
    """One config of a plan, ready to be called with tensors of any lengths.

    A call takes q (batch, heads, seq_q, qk dim), k (batch, kv heads, seq_k, qk dim), v (batch, kv heads, seq_k, v dim)
    or None where values are in the keys, and indices, int32, (batch, seq_q, top_k) or (batch, kv heads, seq_q, top_k):
    of each query, the keys that it may see, none twice; a negative entry, or one past the last key, is no key. It
    returns (out, lse), and of a plan with maxima (out, lse, maxima): float32, the greatest logit of each row in units
    of lse, -inf for a row that saw no key. ``topk_length``, int32, (batch, seq_q), is how many entries of each list
    count: tiles of entries beyond are not looked at. Under TRITON_INTERPRET=1 it takes CPU tensors.
    """

    def __init__(self, plan: GatheredPlan, config: Config) -> None:
        self.plan = plan
        self.config = config
        self.source = render(plan, config)
        self.tickets = Tickets()
        self._kept: Kept[Prepared] = Kept()

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor | None,
        indices: torch.Tensor,
        *,
        sink: torch.Tensor | None = None,
        offsets: torch.Tensor | None = None,
        key_range: torch.Tensor | None = None,
        topk_length: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        tensors = (q, k, v, indices, sink, offsets, key_range, topk_length)
        key = signature_of(tensors)
        prepared = self._kept.get(key)
        if prepared is None:
            check_gathered_call(self.plan, self.config, tensors)
            prepared = self._kept.keep(key, Prepared(self, tensors))
        return prepared(tensors)

    def sources(self) -> list[str]:
        """Digests of the texts that a call compiles."""
        return [self.source.digest]

    def compiled(self) -> list[tuple[str, Any]]:
        """What Triton has compiled for the calls so far, one a specialisation, each with its text's digest."""
        return compiled_of(prepared.bound for prepared in self._kept.values())


class Prepared:
    """A launch whose every argument but the pointers is known."""

    def __init__(self, launcher: GatheredLauncher, tensors: Sequence[Any]) -> None:
        q, k, v, indices = tensors[:4]
        plan, config = launcher.plan, launcher.config
        self.v_dim = plan.kind.head_dim.v
        self.maxima = plan.maxima
        self.tickets = launcher.tickets if "ticket_ptr" in launcher.source.parameters else None
        self.empty = 0 in (q.shape[0], q.shape[2], k.shape[2], indices.shape[-1])
        self.bound = None if self.empty else Bound(launcher.source, q.device, *_launch(plan, config, q, k, v, indices))

    def __call__(self, tensors: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        out, lse = empty_outputs(tensors[0], self.v_dim)
        maxima = torch.empty_like(lse) if self.maxima else None
        results = (out, lse) if maxima is None else (out, lse, maxima)
        if self.bound is None:
            out.zero_()
            for rows in results[1:]:
                rows.fill_(float("-inf"))
            return results
        counter = None
        if self.tickets is not None:
            device = out.device
            counter = self.tickets.of(device, torch._C._cuda_getCurrentRawStream(device.index))
        self.bound(*tensors, out, lse, maxima, counter)
        return results


def gathered_grid(plan: GatheredPlan, config: Config, batch: int, heads: int, seq_q: int, sms: int = 1) -> int:
    """Programs of a launch: one a tile of heads of a query, or as many as there are SMs, which take all in turn."""
    block, group = int(config["BLOCK_H"] or 1), plan.kind.heads.group
    tiles = -(-group // block) * (heads // group) * batch * seq_q
    if tiles > MAX_TILES:
        raise CallError(f"{tiles} tiles of heads are more than a launch can have ({MAX_TILES}); split the batch")
    return min(tiles, sms) if config.get("TURNS", 1) == EVERY else tiles


def _launch(
    plan: GatheredPlan, config: Config, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor | None, indices: torch.Tensor
) -> tuple[int, dict[str, Any], dict[str, int], dict[str, Any]]:
    """The grid, the numbers, which tensor each pointer is of, and the tunables."""
    batch, heads, seq_q, _ = q.shape
    out, _ = empty_outputs(q, plan.kind.head_dim.v)
    listed = indices.unsqueeze(1) if indices.dim() == 3 else indices
    values: dict[str, Any] = {"batches": batch, "heads": heads, "seq_q": seq_q, "seq_k": k.shape[2]}
    values["top_k"] = indices.shape[-1]
    for letter, tensor in (("q", q), ("k", k), ("v", v), ("i", listed), ("o", out)):
        if tensor is not None:
            # The stride of a single element is never used; of one list for all KV heads, it must be 0.
            strides = (tensor.stride(n) if tensor.shape[n] > 1 else 0 for n in range(3))
            values |= {f"stride_{letter}{axis}": stride for axis, stride in zip("bhs", strides, strict=True)}
    tensors = {name: n for n, name in enumerate((*POINTERS, *RESULTS))}
    if is_gluon(config):
        for name, box in gathered_boxes(plan).items():
            of, described = ("out_ptr", out) if name == "out_desc" else ("q_ptr", q)
            values[name] = Descriptor(described, box, gluon=True)
            tensors[name] = tensors[of]
    sms = torch.cuda.get_device_properties(q.device).multi_processor_count if q.device.type == "cuda" else 1
    constants = {} if is_gluon(config) else {"BLOCK_H": config["BLOCK_H"], "BLOCK_N": config["BLOCK_N"]}
    return gathered_grid(plan, config, batch, heads, seq_q, sms), values, tensors, constants


def why_not_gathered_by_hopper(q: torch.Tensor, k: torch.Tensor) -> str | None:
    """Why the Hopper schedule cannot take tensors laid out so; None where it can."""
    for name, tensor in (("q", q), ("k", k)):
        if tensor.data_ptr() % ALIGNED_BYTES:
            return f"{name} does not begin at a multiple of {ALIGNED_BYTES} bytes"
    for stride in q.stride()[:-1]:
        if stride <= 0 or stride * q.element_size() % ALIGNED_BYTES:
            return f"q has stride {stride}; the copy engine takes multiples of {ALIGNED_BYTES} bytes"
    for axis in (0, 2):
        if k.shape[axis] > 1 and k.stride(axis) % ALIGNED_STRIDE:
            return f"k has stride {k.stride(axis)}; its rows are copied where that is a multiple of {ALIGNED_STRIDE}"
    if k.shape[2] > 1 and k.stride(2) >= 2**31:
        return f"k has stride {k.stride(2)}; rows are found by a product of 32 bits each"
    return None


def check_given(plan: GatheredPlan, v: torch.Tensor | None, sink: torch.Tensor | None) -> None:
    """CallError unless values and a sink are given where the plan's kind has them, and only there."""
    if plan.shared_values and v is not None:
        raise CallError(f"kind '{plan.kind.name}' has its values in the keys; v is given, None is needed")
    if not plan.shared_values and v is None:
        raise CallError(f"kind '{plan.kind.name}' has values of its own; v is None, a tensor is needed")
    check_sink(plan.kind, sink)


def check_gathered_call(plan: GatheredPlan, config: Config, tensors: Sequence[Any]) -> None:
    """CallError unless shapes, dtypes, devices and strides are those of the plan's kind.

    ``tensors`` are a call's, in the launcher's order; lists that are yet to be made are None.
    """
    q, k, v, indices, sink, offsets, key_range, topk_length = tensors
    kind, dtype = plan.kind, getattr(torch, plan.kind.dtype)
    check_given(plan, v, sink)
    check_rows(kind, {"q": q, "k": k, "v": v})
    batch, heads, seq_q, _ = q.shape
    group = kind.heads.group
    seq_k, kv_heads = k.shape[2], heads // group
    if heads % group or (plan.shared_values and kv_heads != 1):
        raise CallError(f"q has {heads} heads; {group} share a {'latent' if plan.shared_values else 'KV head'}")
    top_k = indices.shape[-1] if indices is not None and indices.dim() else 0
    of_heads = (kv_heads,) if indices is not None and indices.dim() != 3 else ()
    expected: dict[str, tuple[Any, tuple[int, ...], torch.dtype | None]] = {
        "q": (q, (batch, heads, seq_q, kind.head_dim.qk), dtype),
        "k": (k, (batch, kv_heads, seq_k, kind.head_dim.qk), dtype),
        "v": (v, (batch, kv_heads, seq_k, kind.head_dim.v), dtype),
        "indices": (indices, (batch, *of_heads, seq_q, top_k), torch.int32),
        "sink": (sink, (heads,), None),
        "offsets": (offsets, (batch,), torch.int32),
        "key_range": (key_range, (batch, 2), torch.int32),
        "topk_length": (topk_length, (batch, seq_q), torch.int32),
    }
    check_expected(expected, q.device)
    if top_k > MAX_TOP_K:
        raise CallError(f"indices has {top_k} entries a list; at most {MAX_TOP_K} are allowed")
    if indices is not None:
        check_lists("indices", indices)
    if is_gluon(config) and (reason := why_not_gathered_by_hopper(q, k)):
        raise CallError(f"{reason}; another schedule, or contiguous(), would be right")

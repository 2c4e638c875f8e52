"""Launching an indexer's logits: arguments bound once a shape, work shared out by what the GPU has."""

from __future__ import annotations

from typing import Any

import torch

from attngen.config import Config
from attngen.errors import CallError
from attngen.op.bound import Bound, compiled_of
from attngen.op.descriptor import Descriptor
from attngen.op.indexer_items import ceil_div, keys_per_item
from attngen.op.launch import Kept, signature_of
from attngen.plan.indexer import COPY_BYTES, IndexerPlan
from attngen.plan.indexer_hopper import IndexerShape
from attngen.source import render
from attngen.source.indexer import boxes

ROW_UNIT = 16  # rows of logits are a multiple of so many elements apart
INTERPRETED_PROGRAMS = 3  # that are taken to run at once where there is no GPU
MOST_DISTANCE = 2**31 - 1  # elements between the first and the last row of a tile
MAX_GRID = 2**31 - 1
POSITIONS = {"q_ptr": 0, "q_desc": 0, "k_ptr": 1, "k_desc": 1, "w_ptr": 2, "key_first_ptr": 3, "key_end_ptr": 4}
POSITIONS |= {"k_scale_ptr": 5, "out_ptr": 6}


def torch_dtype(name: str) -> torch.dtype:
    return torch.float8_e4m3fn if name == "float8_e4m3" else getattr(torch, name)


class IndexerLauncher:
    """One config of a plan, ready to be called with tensors of any lengths.

    A call takes q (batch, seq_q, heads, dim), k (batch, seq_k, dim), w (batch, seq_q, heads) and the first key and the
    one past the last that each query may see (batch, seq_q), int32; of FP8, k_scale (batch, seq_k) too. It returns
    logits (batch, seq_q, seq_k or more columns): those of other keys are -inf if the plan is clean, else anything.
    Under TRITON_INTERPRET=1 the portable schedule takes CPU tensors.
    """

    def __init__(self, plan: IndexerPlan, config: Config) -> None:
        self.plan = plan
        self.config = config
        self.source = render(plan, config)
        self._kept: Kept[Bound | None] = Kept()

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        w: torch.Tensor,
        key_first: torch.Tensor,
        key_end: torch.Tensor,
        *,
        k_scale: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if out is None:
            out = self.empty_logits(q, k)
        tensors = (q, k, w, key_first, key_end, k_scale, out)
        key = signature_of(tensors)
        if key in self._kept:
            bound = self._kept[key]
        else:
            check_indexer_call(self.plan, *tensors)
            bound = self._kept.keep(key, self._prepare(q, k, k_scale, out))
        if bound is not None:
            bound(*tensors)
        return out

    def sources(self) -> list[str]:
        """Digests of the texts that a call compiles."""
        return [self.source.digest]

    def compiled(self) -> list[tuple[str, Any]]:
        """What Triton has compiled for the calls so far, one a specialisation, each with its text's digest."""
        return compiled_of(self._kept.values())

    def empty_logits(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        """Uninitialised, (batch, seq_q, seq_k); rows lie a multiple of 16 elements apart."""
        batch, seq_q, seq_k = q.shape[0], q.shape[1], k.shape[1]
        columns = ceil_div(seq_k, ROW_UNIT) * ROW_UNIT
        return q.new_empty((batch, seq_q, columns), dtype=torch_dtype(self.plan.logits))[..., :seq_k]

    def _prepare(
        self, q: torch.Tensor, k: torch.Tensor, k_scale: torch.Tensor | None, out: torch.Tensor
    ) -> Bound | None:
        """The launch for tensors of these shapes and strides; None where there is nothing to compute."""
        plan, config = self.plan, self.config
        batch, seq_q, seq_k = q.shape[0], q.shape[1], k.shape[1]
        if 0 in (batch, seq_q, seq_k):
            return None
        hopper = config["schedule"] == "hopper"
        shape = IndexerShape.of(plan, config) if hopper else None
        queries = int(config["BLOCK_Q"] or 0) if shape is None else shape.block_q
        if queries * out.stride(1) > MOST_DISTANCE:
            raise CallError(f"rows of out are {out.stride(1)} elements apart; {MOST_DISTANCE // queries} are the most")
        programs = INTERPRETED_PROGRAMS
        if q.device.type == "cuda":
            programs = torch.cuda.get_device_properties(q.device).multi_processor_count
        tiles = ceil_div(seq_q, queries)
        keys = keys_per_item(tiles, queries, batch, seq_q, seq_k, programs, hopper)
        items = tiles * batch * ceil_div(seq_k, keys)
        if items > MAX_GRID:
            raise CallError(f"{items} programs are more than a launch can have ({MAX_GRID}); split the batch")
        values: dict[str, object] = {"batches": batch, "seq_q": seq_q, "seq_k": seq_k, "keys_per_item": keys}
        values |= {"stride_kb": k.stride(0), "stride_ks": k.stride(1)}
        values |= {"k_scale_stride": 0 if k_scale is None else k_scale.stride(0)}
        values |= {"stride_ob": out.stride(0), "stride_os": out.stride(1)}
        if shape is not None:
            if not describable(q):
                raise CallError(f"the copy engine takes queries at multiples of {COPY_BYTES} bytes")
            box = boxes(plan, shape)
            values |= {"q_desc": Descriptor(q, box["q_desc"], gluon=True), "k_desc": _described_keys(k, box["k_desc"])}
        constants = {name: config[name] for name in self.source.constexprs}
        return Bound(self.source, q.device, min(items, programs) if hopper else items, values, POSITIONS, constants)


def describable(x: torch.Tensor) -> bool:
    """Whether the copy engine can be told of a tensor: its strides and address are multiples of 16 bytes."""
    strides = [x.stride(n) * x.element_size() for n in range(x.dim() - 1) if x.shape[n] > 1]
    return x.data_ptr() % COPY_BYTES == 0 and all(stride > 0 and stride % COPY_BYTES == 0 for stride in strides)


def _described_keys(k: torch.Tensor, box: tuple[int, ...]) -> Descriptor:
    """Strides of single elements are never used, and may be none that the copy engine takes."""
    if not describable(k):
        raise CallError(
            f"the copy engine takes keys whose strides and address are multiples of {COPY_BYTES} bytes; these have "
            f"strides of {tuple(k.stride())} elements: use the portable schedule"
        )
    made = Descriptor(k, box, gluon=True)
    unit = COPY_BYTES // k.element_size()
    made.strides = [
        stride if size > 1 else -(-k.shape[2] // unit) * unit
        for size, stride in zip(k.shape, made.strides, strict=True)
    ]
    made.strides[2] = 1
    return made


def check_indexer_call(
    plan: IndexerPlan,
    q: torch.Tensor,
    k: torch.Tensor,
    w: torch.Tensor,
    key_first: torch.Tensor,
    key_end: torch.Tensor,
    k_scale: torch.Tensor | None,
    out: torch.Tensor,
) -> None:
    """CallError unless the tensors are what the plan takes."""
    if q.dim() != 4 or k.dim() != 3:
        raise CallError(
            f"q is (batch, seq_q, heads, dim) and k (batch, seq_k, dim), but they are {tuple(q.shape)} and "
            f"{tuple(k.shape)}"
        )
    batch, seq_q, seq_k = q.shape[0], q.shape[1], k.shape[1]
    wanted = {
        "q": (q, (batch, seq_q, plan.heads, plan.head_dim), plan.dtype),
        "k": (k, (batch, seq_k, plan.head_dim), plan.dtype),
        "w": (w, (batch, seq_q, plan.heads), "float32"),
        "key_first": (key_first, (batch, seq_q), "int32"),
        "key_end": (key_end, (batch, seq_q), "int32"),
    }
    if plan.scaled != (k_scale is not None):
        raise CallError(f"keys in {plan.dtype} have {'a k_scale' if plan.scaled else 'no k_scale'}")
    if k_scale is not None:
        wanted["k_scale"] = (k_scale, (batch, seq_k), "float32")
    for name, (tensor, shape, dtype) in wanted.items():
        if tuple(tensor.shape) != shape or tensor.dtype != torch_dtype(dtype):
            raise CallError(f"{name} must be {shape} in {dtype}, but is {tuple(tensor.shape)} in {tensor.dtype}")
        if tensor.device != q.device:
            raise CallError(f"{name} is on {tensor.device}, and q on {q.device}")
    for name, tensor in {"q": q, "w": w, "key_first": key_first, "key_end": key_end}.items():
        if not tensor.is_contiguous():
            raise CallError(f"{name} must be contiguous, but its strides are {tuple(tensor.stride())}")
    for name, rows in {"k": k, "k_scale": k_scale}.items():
        if rows is not None and rows.shape[-1] > 1 and rows.stride(-1) != 1:
            raise CallError(f"{name} must have a last stride of 1, but its strides are {tuple(rows.stride())}")
    _check_out(plan, out, (batch, seq_q, seq_k), q.device)


def _check_out(plan: IndexerPlan, out: torch.Tensor, sizes: tuple[int, int, int], device: torch.device) -> None:
    batch, seq_q, seq_k = sizes
    fits = out.dim() == 3 and tuple(out.shape[:2]) == (batch, seq_q) and out.shape[2] >= seq_k
    if not fits or out.dtype != torch_dtype(plan.logits) or out.device != device:
        raise CallError(
            f"out must be ({batch}, {seq_q}, {seq_k} or more) in {plan.logits} on {device}, but is {tuple(out.shape)} "
            f"in {out.dtype} on {out.device}"
        )
    apart = [out.stride(1)] * (seq_q > 1) + [out.stride(0)] * (batch > 1)
    if out.numel() and ((out.shape[2] > 1 and out.stride(2) != 1) or any(stride % ROW_UNIT for stride in apart)):
        raise CallError(
            f"rows of out must be contiguous and a multiple of {ROW_UNIT} elements apart, but its strides are "
            f"{tuple(out.stride())}"
        )

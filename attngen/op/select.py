"""Launching a selection: keys of rows of logits, with memory of its own on every call."""

from __future__ import annotations

from typing import Any

import torch

from attngen.config import Config
from attngen.errors import CallError
from attngen.op.bound import Bound, compiled_of
from attngen.op.launch import Kept, signature_of
from attngen.plan.select import ALIGNED, SelectPlan, most_programs, scratch_elements
from attngen.source import render

MOST_COLUMNS = 2**31 - 1  # keys are int32
INTERPRETED_PROGRAMS = 2  # that take turns at rows where there is no GPU


class SelectLauncher:
    """One config of a selection, ready to be called with any number of rows of any length.

    A call takes logits (rows, columns) of the plan's dtype, whose rows lie a multiple of 16 elements apart, and int32
    key_first and key_end (rows,): a row has the keys from its first to before its end. It returns int32
    (rows, top_k): ascending keys, and -1 for what a row is too short for. ``out`` may be given, with any stride
    between rows. Under TRITON_INTERPRET=1 it takes CPU tensors.

    Beside its result a launch needs memory for candidates: int64 for each of LIST + BLOCK, a program, of which
    there are at most 1024 // threads an SM. That is 35 MB on an H100 at the default config for up to 2048 keys, and
    does not grow with the logits. It is PyTorch's, taken on every call: streams do not share it, and a CUDA graph
    keeps its own.
    """

    def __init__(self, plan: SelectPlan, config: Config) -> None:
        self.plan = plan
        self.config = config
        self.source = render(plan, config)
        self._kept: Kept[PreparedSelection] = Kept()

    def __call__(
        self, logits: torch.Tensor, key_first: torch.Tensor, key_end: torch.Tensor, *, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        if out is None:
            out = torch.empty((logits.shape[0], self.plan.top_k), dtype=torch.int32, device=logits.device)
        key = signature_of((logits, key_first, key_end, out))
        prepared = self._kept.get(key)
        if prepared is None:
            self._check(logits, key_first, key_end)
            self._check_out(logits, out)
            prepared = self._kept.keep(key, PreparedSelection(self, logits, out))
        prepared(logits, key_first, key_end, out)
        return out

    def sources(self) -> list[str]:
        """Digests of the texts that a call compiles."""
        return [self.source.digest]

    def compiled(self) -> list[tuple[str, Any]]:
        """What Triton has compiled for the calls so far, one a specialisation, each with its text's digest."""
        return compiled_of(prepared.bound for prepared in self._kept.values())

    def _check(self, logits: torch.Tensor, key_first: torch.Tensor, key_end: torch.Tensor) -> None:
        """CallError for what the kernel cannot take."""
        for name, tensor in (("logits", logits), ("key_first", key_first), ("key_end", key_end)):
            if not isinstance(tensor, torch.Tensor):
                raise CallError(f"'{name}' is {type(tensor).__name__}; a torch.Tensor is needed")
        if logits.ndim != 2 or str(logits.dtype) != f"torch.{self.plan.logits}":
            raise CallError(
                f"logits are {tuple(logits.shape)} {logits.dtype}; (rows, columns) {self.plan.logits} is needed"
            )
        rows, columns = logits.shape
        if columns > MOST_COLUMNS:
            raise CallError(f"logits have {columns} columns; up to {MOST_COLUMNS} are allowed")
        if columns > 1 and logits.stride(1) != 1:
            raise CallError(f"columns of logits lie {logits.stride(1)} elements apart; side by side is needed")
        if rows > 1 and (logits.stride(0) % ALIGNED or logits.stride(0) < 0):
            raise CallError(f"rows of logits lie {logits.stride(0)} elements apart; a multiple of {ALIGNED} is needed")
        for name, tensor in (("key_first", key_first), ("key_end", key_end)):
            if tensor.shape != (rows,) or tensor.dtype != torch.int32 or (rows > 1 and tensor.stride(0) != 1):
                raise CallError(
                    f"{name} is {tuple(tensor.shape)} {tensor.dtype} with stride {tensor.stride()}; "
                    f"contiguous ({rows},) int32 is needed"
                )
            if tensor.device != logits.device:
                raise CallError(f"{name} is on {tensor.device} and logits are on {logits.device}; one device is needed")

    def _check_out(self, logits: torch.Tensor, out: torch.Tensor) -> None:
        shape = (logits.shape[0], self.plan.top_k)
        if out.shape != shape or out.dtype != torch.int32 or out.device != logits.device or out.stride(1) != 1:
            raise CallError(
                f"out is {tuple(out.shape)} {out.dtype} on {out.device} with strides {out.stride()}; {shape} int32 on "
                f"{logits.device}, columns side by side, is needed"
            )


class PreparedSelection:
    """A launch for logits of one shape and strides."""

    def __init__(self, launcher: SelectLauncher, logits: torch.Tensor, out: torch.Tensor) -> None:
        rows, columns = logits.shape
        programs = INTERPRETED_PROGRAMS
        if logits.device.type == "cuda":
            properties = torch.cuda.get_device_properties(logits.device)
            warp_size = getattr(properties, "warp_size", 32)
            programs = most_programs(launcher.config, properties.multi_processor_count, warp_size)
        programs = min(programs, rows)
        self.scratch_elements = programs * scratch_elements(launcher.config)
        self.bound: Bound | None = None
        if rows == 0:
            return
        self.bound = Bound(
            launcher.source,
            logits.device,
            programs,
            {
                "stride_logits": logits.stride(0) if rows > 1 else ALIGNED,  # that of a single row is never used
                "stride_out": out.stride(0) if rows > 1 else 1,
                "rows": rows,
                "columns": columns,
            },
            {"logits_ptr": 0, "key_first_ptr": 1, "key_end_ptr": 2, "out_ptr": 3, "scratch_ptr": 4},
        )

    def __call__(self, logits: torch.Tensor, key_first: torch.Tensor, key_end: torch.Tensor, out: torch.Tensor) -> None:
        """Launch on the current stream."""
        if self.bound is not None:
            scratch = torch.empty(self.scratch_elements, dtype=torch.int64, device=logits.device)
            self.bound(logits, key_first, key_end, out, scratch)

"""Whether tensors of a call over lists are what its kind takes: one clear error where they are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from attngen.errors import CallError
from attngen.spec.model import Kind

UNSTRIDED = ("sink", "offsets", "key_range", "topk_length")


def check_rows(kind: Kind, tensors: Mapping[str, torch.Tensor | None]) -> None:
    """CallError unless each is (batch, heads, sequence, dim) of the kind's dtype, with a unit last stride, or None."""
    dtype = getattr(torch, kind.dtype)
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.dim() != 4 or tensor.dtype != dtype:
            held = f"{tuple(tensor.shape)} of {tensor.dtype}"
            raise CallError(f"{name} is {held}; (batch, heads, sequence, dim) of {kind.dtype} is needed")
        if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
            raise CallError(f"{name} has stride {tensor.stride(-1)} in its last dimension; 1 is needed")


def check_expected(
    expected: Mapping[str, tuple[Any, tuple[int, ...], torch.dtype | None]], device: torch.device
) -> None:
    """CallError unless each tensor that is given has its shape, its dtype (None: any) and the device."""
    for name, (tensor, shape, dtype) in expected.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise CallError(f"{name} has shape {tuple(tensor.shape)}; {shape} is needed")
        if dtype is not None and tensor.dtype != dtype:
            raise CallError(f"{name} is {tensor.dtype}; {dtype} is needed")
        if tensor.device != device:
            raise CallError(f"{name} is on {tensor.device} and q on {device}; one device is needed")
        if name in UNSTRIDED and not tensor.is_contiguous():
            raise CallError(f"{name} is not contiguous; call contiguous()")


def check_lists(name: str, lists: torch.Tensor) -> None:
    """CallError unless entries of a list lie side by side."""
    if lists.shape[-1] > 1 and lists.stride(-1) != 1:
        raise CallError(f"{name} has stride {lists.stride(-1)} in its last dimension; 1 is needed")


def check_sink(kind: Kind, sink: torch.Tensor | None) -> None:
    """CallError unless a sink is given where, and only where, the kind has one."""
    if kind.sink and sink is None:
        raise CallError(f"kind '{kind.name}' needs the argument 'sink': one logit a query head")
    if not kind.sink and sink is not None:
        raise CallError(f"kind '{kind.name}' takes no argument 'sink'")

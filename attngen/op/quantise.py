"""Quantising an indexer's queries and keys: launches by shape, and the same arithmetic in plain PyTorch."""

from __future__ import annotations

import os

import torch

from attngen.config import Config
from attngen.errors import CallError
from attngen.op.bound import Bound
from attngen.op.launch import Kept, signature_of
from attngen.plan.quantise import LARGEST, LEAST_AMAX, Format, QuantisePlan
from attngen.source import render

MOST_OUTER = 3  # dimensions before the last


class QuantiseLauncher:
    """Rows (..., dim) of up to four dimensions and a unit last stride as (e4m3, contiguous; scales (...), float32).

    On a GPU, and under TRITON_INTERPRET=1, by the plan's kernel; elsewhere by PyTorch, to the same bits. A plan that
    quantises nothing gives the rows back, and scales of 1; it needs no config.
    """

    def __init__(self, plan: QuantisePlan, config: Config | None = None) -> None:
        if plan.layout != "rows":
            raise ValueError("rows of a cache are written by attngen.op.cache")
        self.plan = plan
        self.config = config
        self.source = None if plan.identity or config is None else render(plan, config)
        self._kept: Kept[Bound] = Kept()

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        plan = self.plan
        check_rows(plan, x, plan.head_dim)
        if plan.identity:
            return x, torch.ones((), device=x.device).expand(x.shape[:-1])
        if self.source is None or not runs_kernels(x.device):
            return quantise_in_torch(x, plan.format, plan.rotate)
        out = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
        scale = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
        if x.numel():
            key = signature_of((x,))
            bound = self._kept.get(key)
            if bound is None:
                assert self.config is not None
                places = {"x_ptr": 0, "out_ptr": 1, "scale_ptr": 2}
                constants = {name: self.config[name] for name in self.source.constexprs}
                grid = -(-scale.numel() // int(self.config["BLOCK_M"] or 1))
                made = Bound(self.source, x.device, grid, row_values(x), places, constants)
                bound = self._kept.keep(key, made)
            bound(x, out, scale)
        return out, scale


def runs_kernels(device: torch.device) -> bool:
    """Whether generated kernels run on tensors of a device."""
    return device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


def check_rows(plan: QuantisePlan, x: torch.Tensor, columns: int) -> None:
    """CallError unless ``x`` is what the plan takes."""
    source = getattr(torch, plan.source)
    if x.dim() < 1 or x.shape[-1] != columns or x.dim() > MOST_OUTER + 1:
        raise CallError(f"rows must be (..., {columns}) of up to {MOST_OUTER + 1} dimensions, but are {tuple(x.shape)}")
    if x.dtype != source:
        raise CallError(f"rows must be in {plan.source}, but are in {x.dtype}")
    if x.stride(-1) != 1:
        raise CallError(f"rows must have a last stride of 1, but their strides are {tuple(x.stride())}")


def row_values(x: torch.Tensor) -> dict[str, int]:
    """The numbers that say where rows are: three sizes and strides, those that a tensor lacks before its own."""
    missing = MOST_OUTER - (x.dim() - 1)
    sizes = [1] * missing + list(x.shape[:-1])
    strides = [0] * missing + list(x.stride()[:-1])
    used = [stride if size > 1 else 0 for size, stride in zip(sizes, strides, strict=True)]
    values = {f"stride_x{n}": stride for n, stride in enumerate(used)}
    return values | {"rows": sizes[0] * sizes[1] * sizes[2], "size_1": sizes[1], "size_2": sizes[2]}


def quantise_in_torch(x: torch.Tensor, form: Format, rotate: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as e4m3 and a scale each, as the kernels compute them, bit by bit."""
    x = x.float()
    if rotate:
        x = rotated(x)
    amax = x.abs().amax(-1).clamp_min(LEAST_AMAX)
    scale = amax / amax.new_full((), LARGEST)  # on a GPU, a Python number would be multiplied by its reciprocal
    if form == "ue8m0":
        scale = ((scale.view(torch.int32) + 0x7FFFFF) & 0x7F800000).view(torch.float32)
    values = (x / scale[..., None]).clamp(-LARGEST, LARGEST)
    return values.to(torch.float8_e4m3fn), scale


def rotated(x: torch.Tensor) -> torch.Tensor:
    """x (..., dim) times Sylvester's Hadamard matrix, times dim ** -0.5, in float32: sums and differences of
    neighbours, stage by stage."""
    dim = x.shape[-1]
    for _ in range(dim.bit_length() - 1):
        even, odd = x.unflatten(-1, (dim // 2, 2)).unbind(-1)
        x = torch.cat((even + odd, even - odd), -1)
    return x * torch.tensor(dim**-0.5, dtype=torch.float32)

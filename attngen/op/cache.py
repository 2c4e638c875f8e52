"""Caches in FP8 as FlashMLA and DeepGEMM lay them out: rows written by a kernel on a GPU, read back by PyTorch."""

from __future__ import annotations

import torch

from attngen.config import Config
from attngen.errors import CallError
from attngen.op.bound import Bound
from attngen.op.launch import Kept, signature_of
from attngen.op.quantise import check_rows, quantise_in_torch, row_values, runs_kernels
from attngen.plan.quantise import (
    LATENT_BYTES,
    LATENT_GROUP,
    LATENT_RANK,
    LATENT_ROPE,
    PAGE_KEYS,
    QuantisePlan,
)
from attngen.source import render

SCALE_BYTES = 4
GROUPS = LATENT_RANK // LATENT_GROUP
LATENT_SCALES = slice(LATENT_RANK, LATENT_RANK + GROUPS * SCALE_BYTES)  # bytes of a row


def latent_cache(rows: int, device: torch.device | str) -> torch.Tensor:
    """An empty cache of latent keys, (rows, 656) bytes: 512 e4m3, 4 float32 scales, 64 bfloat16."""
    return torch.zeros((rows, LATENT_BYTES), dtype=torch.uint8, device=device)


def index_pages(pages: int, head_dim: int, device: torch.device | str) -> torch.Tensor:
    """An empty cache of an indexer's keys, (pages, 64, dim + 4) bytes: a page's keys come first, then their scales."""
    return torch.zeros((pages, PAGE_KEYS, head_dim + SCALE_BYTES), dtype=torch.uint8, device=device)


class CacheWriter:
    """Writes rows into a cache of the plan's layout: ``writer(x, cache, slots)``.

    x: (..., columns) with a unit last stride; cache: bytes, contiguous; slots: the place of each row, int64, a negative
    one for rows to leave out. By the plan's kernel on a GPU and under TRITON_INTERPRET=1, elsewhere by PyTorch, to the
    same bits; by PyTorch too where there is no config.
    """

    def __init__(self, plan: QuantisePlan, config: Config | None = None) -> None:
        self.plan = plan
        self.config = config
        self.columns = plan.head_dim + (LATENT_ROPE if plan.layout == "latent" else 0)
        self.source = None if config is None else render(plan, config)
        self._kept: Kept[Bound] = Kept()

    def __call__(self, x: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> None:
        plan = self.plan
        check_rows(plan, x, self.columns)
        _check_cache(plan, cache)
        if slots.dtype != torch.int64 or slots.numel() != x.numel() // self.columns or not slots.is_contiguous():
            raise CallError(f"slots must be one contiguous int64 a row, but are {tuple(slots.shape)} in {slots.dtype}")
        if not x.numel():
            return
        if self.config is None or self.source is None or not runs_kernels(x.device):
            write = _write_latent if plan.layout == "latent" else _write_pages
            write(plan, x.reshape(-1, self.columns), cache, slots.reshape(-1))
            return
        key = signature_of((x, cache, slots))
        bound = self._kept.get(key)
        if bound is None:
            names = ["x_ptr", "out_ptr", "scale_ptr", "slot_ptr", "rope_ptr"]
            places = {name: n for n, name in enumerate(names) if name in self.source.parameters}
            constants = {name: self.config[name] for name in self.source.constexprs}
            grid = -(-slots.numel() // int(self.config["BLOCK_M"] or 1))
            bound = self._kept.keep(key, Bound(self.source, x.device, grid, row_values(x), places, constants))
        flat = cache.view(-1)
        views = [flat.view(dtype) for dtype in (torch.float8_e4m3fn, torch.float32, torch.bfloat16)]
        bound(x, views[0], views[1], slots, views[2])


def read_latent(cache: torch.Tensor) -> torch.Tensor:
    """Rows of a cache of latent keys, (..., 656) bytes, as (..., 576) bfloat16."""
    values = cache[..., :LATENT_RANK].view(torch.float8_e4m3fn).float().unflatten(-1, (GROUPS, LATENT_GROUP))
    scales = cache[..., LATENT_SCALES].contiguous().view(torch.float32)
    rope = cache[..., LATENT_SCALES.stop :].contiguous().view(torch.bfloat16)
    return torch.cat(((values * scales[..., None]).flatten(-2).bfloat16(), rope), -1)


def read_pages(cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys of a paged index cache, (pages, 64, dim) e4m3, and their scales, (pages, 64): views of its bytes."""
    dim = cache.shape[-1] - SCALE_BYTES
    flat = cache.view(cache.shape[0], -1)
    keys = flat[:, : PAGE_KEYS * dim].view(torch.float8_e4m3fn).unflatten(-1, (PAGE_KEYS, dim))
    return keys, flat[:, PAGE_KEYS * dim :].view(torch.float32)


def _check_cache(plan: QuantisePlan, cache: torch.Tensor) -> None:
    row = LATENT_BYTES if plan.layout == "latent" else plan.head_dim + SCALE_BYTES
    paged = plan.layout != "pages" or (cache.dim() > 1 and cache.shape[-2] == PAGE_KEYS)
    if cache.dtype != torch.uint8 or cache.shape[-1] != row or not paged or not cache.is_contiguous():
        sizes = f"(..., {row})" if plan.layout == "latent" else f"(pages, {PAGE_KEYS}, {row})"
        raise CallError(f"the cache must be {sizes} contiguous bytes, but is {tuple(cache.shape)} in {cache.dtype}")


def _write_latent(plan: QuantisePlan, x: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> None:
    values, scales = quantise_in_torch(x[:, :LATENT_RANK].unflatten(-1, (GROUPS, LATENT_GROUP)), plan.format, False)
    parts = (values.flatten(-2), scales, x[:, LATENT_RANK:].contiguous())
    rows = torch.cat([part.view(torch.uint8) for part in parts], -1)
    cache.view(-1, LATENT_BYTES)[slots[slots >= 0]] = rows[slots >= 0]


def _write_pages(plan: QuantisePlan, x: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> None:
    kept = slots >= 0
    values, scales = quantise_in_torch(x[kept], plan.format, plan.rotate)
    keys, scales_of_pages = read_pages(cache.view(-1, PAGE_KEYS, plan.head_dim + SCALE_BYTES))
    page, key = slots[kept] // PAGE_KEYS, slots[kept] % PAGE_KEYS
    keys.view(torch.uint8)[page, key] = values.view(torch.uint8)
    scales_of_pages[page, key] = scales

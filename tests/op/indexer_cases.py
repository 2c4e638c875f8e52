"""Calls of an indexer's logits and of quantisation, as values that travel to the process that interprets them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attngen.config import Config
from attngen.plan.indexer import IndexerPlan, plan_indexer
from attngen.plan.quantise import QuantisePlan
from attngen.spec.model import HeadDim, Heads, Indexer, IndexerScale, Kind, Latent, Select

UNTOUCHED = 12345.0  # of out, before a call
NAN = float("nan")


def kind_of(heads=64, head_dim=128, dtype="float8_e4m3", block=128, format="ue8m0") -> Kind:
    indexer = Indexer(heads, head_dim, dtype, IndexerScale(block, format))
    select = Select(top_k=2048, indexer=indexer)
    return Kind("kind", Heads(128, 1), HeadDim(576, 512), causal=True, select=select, latent=Latent(512, 64))


def portable(**values) -> Config:
    return Config(**{"schedule": "portable", "BLOCK_Q": 2, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1, **values})


PORTABLE = portable()


@dataclass(frozen=True)
class IndexerCase:
    """``ranges``: (first, end) of each query's keys, the same in every sequence; causal where there are none."""

    heads: int = 8
    head_dim: int = 32
    dtype: str = "float16"
    logits: str = "float32"
    clean: bool = False
    batch: int = 2
    seq_q: int = 5
    seq_k: int = 70
    ranges: tuple[tuple[int, int], ...] | None = None
    strided: bool = False  # keys cut out of a wider tensor, scales out of a longer one; all else is NaN
    extra_columns: int = 0  # of out, beside seq_k
    config: Config = PORTABLE

    def plan(self) -> IndexerPlan:
        return plan_indexer(kind_of(self.heads, self.head_dim), dtype=self.dtype, logits=self.logits, clean=self.clean)


def inputs_of(case: IndexerCase, device: str = "cpu", seed: int = 0) -> dict[str, torch.Tensor | None]:
    """Keywords of a launcher's call."""
    generator = torch.Generator(device=device).manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    dtype = torch.float8_e4m3fn if case.dtype == "float8_e4m3" else getattr(torch, case.dtype)
    q = normal(case.batch, case.seq_q, case.heads, case.head_dim).to(dtype)
    k = (normal(case.batch, case.seq_k, case.head_dim) * 2).to(dtype)
    w = normal(case.batch, case.seq_q, case.heads) * case.heads**-0.5
    scale = torch.rand(case.batch, case.seq_k, generator=generator, device=device) + 0.5
    if case.strided:
        wide = torch.full((case.batch, case.seq_k + 3, case.head_dim + 16), NAN, device=device).to(dtype)
        k = wide[:, : case.seq_k, : case.head_dim].copy_(k)
        scale = torch.full((case.batch, case.seq_k + 3), NAN, device=device)[:, : case.seq_k].copy_(scale)
    query = torch.arange(case.seq_q, device=device, dtype=torch.int32)
    end = (query + (case.seq_k - case.seq_q) + 1).repeat(case.batch, 1)
    first = torch.zeros_like(end)
    if case.ranges is not None:
        first = torch.tensor([r[0] for r in case.ranges], device=device, dtype=torch.int32).repeat(case.batch, 1)
        end = torch.tensor([r[1] for r in case.ranges], device=device, dtype=torch.int32).repeat(case.batch, 1)
    scaled = case.dtype == "float8_e4m3"
    return {"q": q, "k": k, "w": w, "key_first": first, "key_end": end, "k_scale": scale if scaled else None}


def exact_logits(inputs: dict[str, torch.Tensor | None]) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits in float64, and the sum of the magnitudes of a logit's terms, which bounds its rounding errors."""
    q, k, w = (inputs[name].double() for name in ("q", "k", "w"))  # type: ignore[union-attr]
    scale = inputs["k_scale"]
    factor = 1.0 if scale is None else scale.double()[:, None, :]
    logits, size = [], []
    for t in range(q.shape[1]):
        products = torch.einsum("bhd,bsd->bhs", q[:, t], k)
        magnitudes = torch.einsum("bhd,bsd->bhs", q[:, t].abs(), k.abs())
        logits.append(torch.einsum("bhs,bh->bs", products.relu(), w[:, t]))
        size.append(torch.einsum("bhs,bh->bs", magnitudes, w[:, t].abs()))
    return torch.stack(logits, 1) * factor, torch.stack(size, 1) * factor


def visible(inputs: dict[str, torch.Tensor | None], seq_k: int) -> torch.Tensor:
    first, end = inputs["key_first"], inputs["key_end"]
    assert first is not None and end is not None
    j = torch.arange(seq_k, device=first.device)
    return (j >= first[..., None]) & (j < end[..., None])


def tolerance(case: IndexerCase, exact: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """Sums of head_dim and then of heads terms in float32, each rounding by half a unit of the sum of magnitudes at
    most; rounding to the logits' dtype. Hopper adds FP8 products up in 13 bits of the largest."""
    terms = 2.0**-24 * (case.head_dim + case.heads + 4)
    if case.dtype == "float8_e4m3" and exact.device.type == "cuda":
        terms += 2.0**-13 * 2
    rounding = 2.0**-8 if case.logits == "bfloat16" else 0.0
    return size * terms + exact.abs() * rounding


def run_indexer(case: IndexerCase, device: str = "cpu", seed: int = 0) -> list[str]:
    """What is wrong with the logits of a call; nothing if all is well."""
    from attngen.op.indexer import IndexerLauncher, torch_dtype

    inputs = inputs_of(case, device, seed)
    launcher = IndexerLauncher(case.plan(), case.config)
    columns = -(-(case.seq_k + case.extra_columns) // 16) * 16
    memory = torch.full((case.batch, case.seq_q + 1, columns), UNTOUCHED, dtype=torch_dtype(case.logits), device=device)
    out = memory[:, : case.seq_q, : case.seq_k + case.extra_columns]
    made = launcher(**inputs, out=out)
    seen = visible(inputs, case.seq_k)
    wrong = [] if made is out else ["out is another tensor"]
    logits = out[..., : case.seq_k].double()
    exact, size = exact_logits(inputs)
    far = ((logits - exact).abs() > tolerance(case, exact, size)) & seen
    far |= logits.isnan() & seen
    if far.any():
        worst = (logits - exact).abs().masked_fill(~seen, 0).max()
        wrong.append(f"{int(far.sum())} logits are wrong, by {float(worst)} at most; first {far.nonzero()[0].tolist()}")
    if case.clean and not bool((logits[~seen] == float("-inf")).all()):
        wrong.append("keys that are not seen have logits other than -inf")
    untouched = torch.tensor(UNTOUCHED).to(out.dtype).item()
    if not bool((memory[:, case.seq_q :] == untouched).all()):
        wrong.append("rows past the last query were written")
    if not bool((out[..., case.seq_k :] == untouched).all()):
        wrong.append("columns past the last key were written")
    again = launcher(**inputs)
    if not torch.equal(again[seen], out[..., : case.seq_k][seen]):
        wrong.append("a second call gives other bits")
    return wrong


@dataclass(frozen=True)
class QuantiseCase:
    plan: QuantisePlan
    shape: tuple[int, ...]  # of rows, before the columns
    block_m: int = 4
    strided: bool = False
    magnitude: float = 1.0


def rows_of(case: QuantiseCase, device: str = "cpu") -> torch.Tensor:
    """Rows of every size: zeros, tiny ones, one with a single large number, one of powers of two."""
    generator = torch.Generator(device=device).manual_seed(1)
    columns = case.plan.head_dim + (64 if case.plan.layout == "latent" else 0)
    x = torch.randn((*case.shape, columns), generator=generator, device=device) * case.magnitude
    flat = x.view(-1, columns)
    for n, factor in enumerate((0.0, 1e-6, 1e3)):
        if len(flat) > n:
            flat[n] *= factor
    if len(flat) > 4:
        flat[3, 0] = 448.0
        flat[4] = 2.0 ** torch.arange(columns, device=device).remainder(9)
    x = x.to(getattr(torch, case.plan.source))
    if not case.strided:
        return x
    wide = torch.full((*[size + 1 for size in case.shape], columns + 8), NAN, dtype=x.dtype, device=device)
    return wide[tuple(slice(0, size) for size in x.shape)].copy_(x)


def run_quantise(case: QuantiseCase, device: str = "cpu") -> list[str]:
    """Whether the kernel gives PyTorch's bits."""
    from attngen.op.cache import CacheWriter, index_pages, latent_cache
    from attngen.op.quantise import QuantiseLauncher, quantise_in_torch

    plan, config = case.plan, Config(schedule="portable", BLOCK_M=case.block_m, num_warps=4, num_stages=1)
    x = rows_of(case, device)
    if plan.layout == "rows":
        values, scale = QuantiseLauncher(plan, config)(x)
        wanted, wanted_scale = quantise_in_torch(x, plan.format, plan.rotate)
        wrong = [] if torch.equal(scale, wanted_scale) else ["scales differ"]
        same = torch.equal(values.view(torch.uint8), wanted.contiguous().view(torch.uint8))
        return wrong if same and values.is_contiguous() else [*wrong, "numbers differ"]
    rows = x.numel() // x.shape[-1]
    slots = torch.randperm(rows + 7, generator=torch.Generator().manual_seed(0))[:rows].to(device)
    slots[rows // 2] = -1
    make = (
        (lambda: latent_cache(rows + 7, device))
        if plan.layout == "latent"
        else (lambda: index_pages(-(-(rows + 7) // 64), plan.head_dim, device))
    )
    caches = []
    for writer in (CacheWriter(plan, config), CacheWriter(plan)):
        cache = make().fill_(77)
        writer(x, cache, slots)
        caches.append(cache)
    return [] if torch.equal(*caches) else ["bytes differ"]

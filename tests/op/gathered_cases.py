"""One call of attention over listed keys, as a value that travels to the process that runs it; and its reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from attngen import reference
from attngen.config import Config
from attngen.spec.model import HeadDim, Heads, Kind, Latent
from attngen.verify.bounds import OTHER_STEPS, SMALLEST, TANH, TENSOR_CORE_DEPTH, U32, UNIT
from tests.op.cases import Outcome, largest, strided

NAN = float("nan")
NO_KEY = (-1, -(2**31), 2**31 - 1, -123456)  # and the number of keys


@dataclass(frozen=True)
class GatheredCase:
    """``kind`` run with ``config`` at some sizes. Rows of k and v that no list names are NaN."""

    kind: Kind
    config: Config
    seq_q: int = 3
    seq_k: int = 23
    top_k: int = 17
    batch: int = 2
    heads: int | None = None  # other than the kind's
    bad: float = 0.2  # share of the entries that are no key
    lists_of_heads: bool = False  # a list for every KV head, not one for all
    offsets: tuple[int, ...] | None = None
    key_range: tuple[tuple[int, int], ...] | None = None
    lengths: tuple[int, ...] | None = None  # of the lists, by query
    strided: bool = False
    size: float = 1.0  # of queries, keys and values: the deviation of normal numbers
    maxima: bool = False  # of rows, asked for too
    seed: int = 0


def latent_kind(heads: int = 4, rank: int = 32, rope: int = 16, **fields: Any) -> Kind:
    values = {"dtype": "float16", "scale": (rank + rope) ** -0.5, "latent": Latent(rank, rope), **fields}
    return Kind("kind", Heads(heads, 1), HeadDim(rank + rope, rank), **values)


def make_gathered_inputs(case: GatheredCase, device: str = "cpu") -> dict[str, Any]:
    """The keywords of the call."""
    kind, generator = case.kind, torch.Generator(device=device).manual_seed(case.seed)
    heads = case.heads or kind.heads.query
    kv_heads, dtype = heads // kind.heads.group, getattr(torch, kind.dtype)

    def normal(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=generator, device=device) * case.size).to(dtype)

    q = normal(case.batch, heads, case.seq_q, kind.head_dim.qk)
    k = normal(case.batch, kv_heads, case.seq_k, kind.head_dim.qk)
    v = None if kind.latent else normal(case.batch, kv_heads, case.seq_k, kind.head_dim.v)
    lists = (case.batch, kv_heads if case.lists_of_heads else 1, case.seq_q)
    entries = -(-case.seq_k // block_of(kind))
    indices = torch.full((*lists, case.top_k), entries, dtype=torch.int32, device=device)
    if case.seq_k:  # distinct keys or blocks, in any order; what is left over names none
        order = torch.rand((*lists, entries), generator=generator, device=device).argsort(-1)[..., : case.top_k]
        indices[..., : order.shape[-1]] = order.int()
    bad = torch.rand(indices.shape, generator=generator, device=device) < case.bad
    kinds = torch.tensor([*NO_KEY, entries], dtype=torch.int32, device=device)
    which = torch.randint(0, len(kinds), indices.shape, generator=generator, device=device)
    indices = torch.where(bad, kinds[which], indices)
    inputs: dict[str, Any] = {"q": q, "k": k, "v": v, "indices": indices if case.lists_of_heads else indices[:, 0]}
    if kind.sink:
        inputs["sink"] = torch.randn(heads, generator=generator, device=device)
    for name, given in (("offsets", case.offsets), ("key_range", case.key_range)):
        if given is not None:
            inputs[name] = torch.tensor(given, dtype=torch.int32, device=device)
    if case.lengths is not None:
        lengths = torch.tensor(case.lengths, dtype=torch.int32, device=device)
        inputs["topk_length"] = lengths.expand(case.batch, case.seq_q).contiguous()
    unlisted = ~listed_keys(case, indices)  # [batch, kv heads or 1, seq_k]
    for name in ("k", "v"):
        if inputs[name] is not None:
            inputs[name] = inputs[name].masked_fill(unlisted[..., None], NAN)
    if case.strided:
        for name in ("q", "k", "v"):
            inputs[name] = None if inputs[name] is None else strided(inputs[name])
        wide = torch.full((*indices.shape[:-1], case.top_k + 3), 0, dtype=torch.int32, device=device)
        wide[..., : case.top_k] = indices
        inputs["indices"] = (wide if case.lists_of_heads else wide[:, 0])[..., : case.top_k]
    return inputs


def listed_keys(case: GatheredCase, indices: torch.Tensor) -> torch.Tensor:
    """Whether some list of a KV head names a key: [batch, kv heads or 1, seq_k]."""
    indices = entries_as_keys(case.kind, indices, case.seq_k)
    named = torch.zeros((*indices.shape[:2], case.seq_k + 1), dtype=torch.bool, device=indices.device)
    valid = (indices >= 0) & (indices < case.seq_k)
    named.scatter_(2, torch.where(valid, indices, case.seq_k).flatten(2).long(), True)
    return named[..., : case.seq_k]


def block_of(kind: Kind) -> int:
    """Keys that an entry of a list names."""
    return 1 if kind.select is None or kind.select.blocks is None else kind.select.blocks.size


def entries_as_keys(kind: Kind, indices: torch.Tensor, seq_k: int) -> torch.Tensor:
    """Lists of keys, -1 for none."""
    block = block_of(kind)
    valid = (indices >= 0) & (indices < -(-seq_k // block))
    return reference.keys_of_blocks(torch.where(valid, indices, -1), block)


def gathered_reference(
    kind: Kind,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor | None,
    indices: torch.Tensor,
    *,
    sink: torch.Tensor | None = None,
    offsets: torch.Tensor | None = None,
    key_range: torch.Tensor | None = None,
    topk_length: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(out, lse, maxima) in float64: one KV head after the other, a few queries at a time."""
    batch, heads, seq_q, _ = q.shape
    kv_heads, seq_k = k.shape[1], k.shape[2]
    if topk_length is not None:
        topk_length = topk_length * block_of(kind)
    indices = entries_as_keys(kind, indices, seq_k)
    group, top_k = heads // kv_heads, indices.shape[-1]
    out = torch.zeros((batch, heads, seq_q, kind.head_dim.v), dtype=torch.float64, device=q.device)
    lse = torch.full((batch, heads, seq_q), -math.inf, dtype=torch.float64, device=q.device)
    maxima = lse.clone()
    together = max(2**27 // max(top_k * (kind.head_dim.qk + group), 1), 1)
    for b in range(batch if seq_k and top_k else 0):
        first, end = (0, seq_k) if key_range is None else key_range[b].clamp(0, seq_k).tolist()
        offset = seq_k - seq_q if offsets is None else int(offsets[b])
        for g in range(kv_heads):
            rows = slice(g * group, (g + 1) * group)
            keys, values = k[b, g], k[b, g, :, : kind.head_dim.v] if v is None else v[b, g]
            for start in range(0, seq_q, together):
                part = slice(start, min(start + together, seq_q))
                i = torch.arange(part.start, part.stop, device=q.device)[:, None] + offset
                j = (indices[b, part] if indices.dim() == 3 else indices[b, g, part]).long()  # [queries, top_k]
                seen = visible(kind, i, j, first, end)
                if topk_length is not None:
                    seen &= torch.arange(top_k, device=q.device) < topk_length[b, part, None]
                j = torch.where(seen, j, 0)
                gathered = keys[j].double().masked_fill(~seen[..., None], 0.0)  # [queries, top_k, dim]
                s = torch.einsum("hqd,qkd->hqk", q[b, rows, part].double(), gathered) * kind.scale
                if kind.softcap is not None:
                    s = kind.softcap * torch.tanh(s / kind.softcap)
                s = s.masked_fill(~seen, -math.inf)
                maxima[b, rows, part] = s.amax(-1)
                total = lse[b, rows, part] = torch.logsumexp(s, -1)
                if sink is not None:
                    total = torch.logaddexp(total, sink[rows, None].double())
                p = torch.exp(s - total[..., None]).masked_fill(~seen, 0.0)
                weighted = values[j].double().masked_fill(~seen[..., None], 0.0)
                out[b, rows, part] = torch.einsum("hqk,qkd->hqd", p, weighted)
    return out, lse, maxima


def gathered_bounds(
    kind: Kind, inputs: dict[str, Any], exact: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, float]:
    """For each element of out, and for lse, the largest error that rounding explains; see attngen/verify/bounds.py."""
    out, lse, _ = exact
    q, k = inputs["q"].double(), torch.nan_to_num(inputs["k"].double(), nan=0.0)
    values = k[..., : kind.head_dim.v] if inputs["v"] is None else torch.nan_to_num(inputs["v"].double(), nan=0.0)
    product = float(q.norm(dim=-1).max() * k.norm(dim=-1).max()) * kind.scale
    steps = -(-kind.head_dim.qk // TENSOR_CORE_DEPTH[kind.dtype])
    sizes = lse[torch.isfinite(lse)].abs()
    greatest = max(product, float(sizes.max()) if sizes.numel() else 0.0, 1.0)
    of_scores = 2 * U32 * steps * product + 2 * U32 * OTHER_STEPS * (product + greatest)
    of_scores += TANH * kind.softcap if kind.softcap is not None else 0.0
    # What errors of weights weigh is the attention over |v|.
    weighed = gathered_reference(kind, **{**inputs, "v": values.abs()})[0]
    lost = SMALLEST[kind.dtype] * float(values.abs().max()) * inputs["indices"].shape[-1]
    unit = UNIT[kind.dtype] + OTHER_STEPS * U32
    return (unit + 2 * of_scores) * weighed + unit * out.abs() + lost, of_scores


def visible(kind: Kind, i: torch.Tensor, j: torch.Tensor, first: int, end: int) -> torch.Tensor:
    """Which listed keys j the queries at i see."""
    seen = (j >= first) & (j < end)
    if kind.causal:
        seen &= j <= i
    if kind.window is not None and kind.window.left is not None:
        seen &= j >= i - kind.window.left
    if kind.window is not None and kind.window.right is not None:
        seen &= j <= i + kind.window.right
    if kind.chunk is not None:
        seen &= j.div(kind.chunk, rounding_mode="floor") == i.div(kind.chunk, rounding_mode="floor")
    if kind.dilation is not None:
        seen &= (i - j) % kind.dilation == 0
    return seen


def run_gathered(case: GatheredCase) -> Outcome:
    """Launch ``case`` in the process of the interpreter, and measure it."""
    from attngen.op.gathered import GatheredLauncher
    from attngen.plan import plan_gathered

    inputs = make_gathered_inputs(case)
    launcher = GatheredLauncher(plan_gathered(case.kind, maxima=case.maxima), case.config)
    results = launcher(**inputs)
    if case.strided:  # once more, by the launch that is kept
        assert torch.equal(results[0], launcher(**inputs)[0])
    assert len(results) == (3 if case.maxima else 2)
    return measured(case, inputs, results, gathered_reference(case.kind, **inputs))


def measured(
    case: GatheredCase,
    inputs: dict[str, Any],
    results: tuple[torch.Tensor, ...],
    exact: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> Outcome:
    """Errors, and those that rounding explains.

    Scores: a sum of products in float32 and a few operations after it, of numbers that exceed the lse little; an error
    of a score is a relative error of its probability. Probabilities and out are rounded to the dtype once each. Maxima
    are scores, and held to the bound of lse.
    """
    (out, *rows), (exact_out, *exact_rows) = results, exact
    kind, exact_lse = case.kind, exact_rows[0]
    assert out.shape == exact_out.shape and out.dtype == inputs["q"].dtype
    unseen = exact_lse == -math.inf
    right = not out[unseen].any()
    for row in rows:
        assert row.shape == exact_lse.shape and row.dtype == torch.float32
        right &= torch.equal(row == -math.inf, unseen)
    errors = [largest((a - b).masked_fill(unseen, 0.0)) for a, b in zip(rows, exact_rows, strict=False)]
    largest_lse = largest(exact_lse.masked_fill(unseen, 0.0))
    scores = 2.0**-24 * (kind.head_dim.qk + case.top_k + 16) * (largest_lse + 8.0)
    half_ulp = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}[kind.dtype]
    values = inputs["k"][..., : kind.head_dim.v] if inputs["v"] is None else inputs["v"]
    return Outcome(
        out_error=largest(out - exact_out),
        out_bound=largest(torch.nan_to_num(values.double(), nan=0.0)) * 2.0 * (half_ulp + scores),
        lse_error=max(errors),
        lse_bound=scores,
        right_rows=bool(right),
        out_strides=tuple(out.stride()),
    )

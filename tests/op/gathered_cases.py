"""One call of attention over listed keys, as a value that travels to the process that runs it; and its reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from attngen.config import Config
from attngen.spec.model import HeadDim, Heads, Kind, Latent
from tests.op.cases import Outcome, strided

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
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    q = normal(case.batch, heads, case.seq_q, kind.head_dim.qk)
    k = normal(case.batch, kv_heads, case.seq_k, kind.head_dim.qk)
    v = None if kind.latent else normal(case.batch, kv_heads, case.seq_k, kind.head_dim.v)
    lists = (case.batch, kv_heads if case.lists_of_heads else 1, case.seq_q)
    indices = torch.full((*lists, case.top_k), case.seq_k, dtype=torch.int32, device=device)
    if case.seq_k:  # distinct keys, in any order; what is left over names no key
        order = torch.rand((*lists, case.seq_k), generator=generator, device=device).argsort(-1)[..., : case.top_k]
        indices[..., : order.shape[-1]] = order.int()
    bad = torch.rand(indices.shape, generator=generator, device=device) < case.bad
    kinds = torch.tensor([*NO_KEY, case.seq_k], dtype=torch.int32, device=device)
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
    named = torch.zeros((*indices.shape[:2], case.seq_k + 1), dtype=torch.bool, device=indices.device)
    valid = (indices >= 0) & (indices < case.seq_k)
    named.scatter_(2, torch.where(valid, indices, case.seq_k).flatten(2).long(), True)
    return named[..., : case.seq_k]


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
) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, lse) in float64: one KV head after the other, a few queries at a time."""
    batch, heads, seq_q, _ = q.shape
    kv_heads, seq_k = k.shape[1], k.shape[2]
    group, top_k = heads // kv_heads, indices.shape[-1]
    out = torch.zeros((batch, heads, seq_q, kind.head_dim.v), dtype=torch.float64, device=q.device)
    lse = torch.full((batch, heads, seq_q), -math.inf, dtype=torch.float64, device=q.device)
    together = max(2**27 // max(top_k * (kind.head_dim.qk + group), 1), 1)
    for b in range(batch if seq_k else 0):
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
                total = lse[b, rows, part] = torch.logsumexp(s, -1)
                if sink is not None:
                    total = torch.logaddexp(total, sink[rows, None].double())
                p = torch.exp(s - total[..., None]).masked_fill(~seen, 0.0)
                weighted = values[j].double().masked_fill(~seen[..., None], 0.0)
                out[b, rows, part] = torch.einsum("hqk,qkd->hqd", p, weighted)
    return out, lse


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
    """Launch ``case`` in a process that was started with TRITON_INTERPRET=1, and measure it."""
    import triton

    from attngen.op.gathered import GatheredLauncher
    from attngen.plan import plan_gathered

    assert triton.knobs.runtime.interpret, "Triton was imported before the interpreter was chosen"
    torch.set_num_threads(1)
    inputs = make_gathered_inputs(case)
    launcher = GatheredLauncher(plan_gathered(case.kind), case.config)
    out, lse = launcher(**inputs)
    if case.strided:  # once more, by the launch that is kept
        assert torch.equal(out, launcher(**inputs)[0])
    return measured(case, inputs, out, lse, gathered_reference(case.kind, **inputs))


def measured(
    case: GatheredCase,
    inputs: dict[str, Any],
    out: torch.Tensor,
    lse: torch.Tensor,
    exact: tuple[torch.Tensor, torch.Tensor],
) -> Outcome:
    """Errors, and those that rounding explains.

    Scores: a sum of products in float32 and a few operations after it, of numbers that exceed the lse little; an error
    of a score is a relative error of its probability. Probabilities and out are rounded to the dtype once each.
    """
    kind, (exact_out, exact_lse) = case.kind, exact
    assert out.shape == exact_out.shape and out.dtype == inputs["q"].dtype
    assert lse.shape == exact_lse.shape and lse.dtype == torch.float32
    unseen = exact_lse == -math.inf
    right = torch.equal(lse == -math.inf, unseen) and not out[unseen].any()
    largest_lse = largest(exact_lse.masked_fill(unseen, 0.0))
    scores = 2.0**-24 * (kind.head_dim.qk + case.top_k + 16) * (largest_lse + 8.0)
    half_ulp = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}[kind.dtype]
    values = inputs["k"][..., : kind.head_dim.v] if inputs["v"] is None else inputs["v"]
    return Outcome(
        out_error=largest(out - exact_out),
        out_bound=largest(torch.nan_to_num(values.double(), nan=0.0)) * 2.0 * (half_ulp + scores),
        lse_error=largest((lse - exact_lse).masked_fill(unseen, 0.0)),
        lse_bound=scores,
        right_rows=bool(right),
        out_strides=tuple(out.stride()),
    )


def largest(values: torch.Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0

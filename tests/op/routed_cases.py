"""One call of attention over chosen blocks, as a value that travels to the process that runs it; and its answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from attngen import reference
from attngen.config import Config
from attngen.plan.routed import Partials, RoutedPlan, plan_routed
from attngen.spec.model import BlockSelect, HeadDim, Heads, Kind, Select
from attngen.verify.bounds import UNIT, element_bound, lse_bound
from tests.op.cases import Outcome, strided

NO_BLOCK = (-1, -(2**31), 2**31 - 1, -123456)  # and the number of blocks


def routed_kind(
    heads: tuple[int, int] = (2, 1),
    head_dim: tuple[int, int] = (16, 16),
    size: int = 16,
    top_k: int = 2,
    per: str = "head",
    **fields: Any,
) -> Kind:
    values = {"dtype": "float16", "scale": head_dim[0] ** -0.5, "causal": True, **fields}
    select = Select(blocks=BlockSelect(size, top_k, last=1, per=per))  # type: ignore[arg-type]
    return Kind("kind", Heads(*heads), HeadDim(*head_dim), select=select, **values)


@dataclass(frozen=True)
class RoutedCase:
    """``kind`` run with ``config`` at some sizes. Rows of k and v of blocks that no list names, and those outside of
    ``key_range``, are NaN."""

    kind: Kind
    config: Config
    seq_q: int = 23
    seq_k: int = 42
    batch: int = 1
    listed: str = "random"  # or "one for all", "none of the first"
    bad: float = 0.2  # share of the entries that are no block
    offsets: tuple[int, ...] | None = None
    key_range: tuple[tuple[int, int], ...] | None = None
    strided: bool = False
    width: int | None = None  # of a list, other than the kind's top_k
    partials: Partials | None = None  # other than the plan's
    workspaces: tuple[int, ...] = ()  # bytes: results must be the same
    coarse: bool = False  # numbers of few bits, whose products are summed exactly in any order, as NumPy may
    seed: int = 0


def plan_of(case: RoutedCase) -> RoutedPlan:
    plan = plan_routed(case.kind)
    return plan if case.partials is None else replace(plan, partials=case.partials)


def make_routed_inputs(case: RoutedCase, device: str = "cpu") -> dict[str, Any]:
    """The keywords of the call."""
    kind, generator = case.kind, torch.Generator(device=device).manual_seed(case.seed)
    plan = plan_of(case)
    heads, kv_heads = kind.heads.query, kind.heads.kv

    def normal(*shape: int) -> torch.Tensor:
        made = torch.randn(shape, generator=generator, device=device)
        if case.coarse:
            made = (2 * made).round().clamp(-2, 2) / 2
        return made.to(getattr(torch, kind.dtype))

    inputs: dict[str, Any] = {"q": normal(case.batch, heads, case.seq_q, kind.head_dim.qk)}
    inputs["k"] = normal(case.batch, kv_heads, case.seq_k, kind.head_dim.qk)
    inputs["v"] = normal(case.batch, kv_heads, case.seq_k, kind.head_dim.v)
    blocks = -(-case.seq_k // plan.select.size)
    lists = (case.batch, heads // plan.heads_of_list, case.seq_q)
    top_k = plan.select.top_k if case.width is None else case.width
    chosen = torch.full((*lists, top_k), blocks, dtype=torch.int32, device=device)
    order = torch.rand((*lists, blocks), generator=generator, device=device)  # distinct blocks, in any order
    if case.listed == "one for all":
        order[..., blocks // 2] = 2.0
    elif case.listed == "none of the first":
        order[..., : blocks // 2] = -1.0
    order = order.argsort(-1, descending=True)[..., :top_k]
    chosen[..., : order.shape[-1]] = order.int()
    bad = torch.rand(chosen.shape, generator=generator, device=device) < case.bad
    kinds = torch.tensor([*NO_BLOCK, blocks], dtype=torch.int32, device=device)
    which = torch.randint(0, len(kinds), chosen.shape, generator=generator, device=device)
    inputs["blocks"] = torch.where(bad, kinds[which], chosen)
    if kind.sink:
        inputs["sink"] = torch.randn(heads, generator=generator, device=device)
    for name, given in (("offsets", case.offsets), ("key_range", case.key_range)):
        if given is not None:
            inputs[name] = torch.tensor(given, dtype=torch.int32, device=device)
    hidden = ~_listed_keys(plan, inputs)
    if case.key_range is not None:
        j = torch.arange(case.seq_k, device=device)
        first, end = inputs["key_range"].unbind(1)
        hidden |= ((j < first[:, None]) | (j >= end[:, None]))[:, None]
    for name in ("k", "v"):
        inputs[name] = inputs[name].masked_fill(hidden[..., None], float("nan"))
    if case.strided:
        inputs |= {name: strided(inputs[name]) for name in ("q", "k", "v")}
        wide = torch.zeros((*lists, top_k + 3), dtype=torch.int32, device=device)
        wide[..., :top_k] = inputs["blocks"]
        inputs["blocks"] = wide[..., :top_k]
    return inputs


def valid_blocks(plan: RoutedPlan, inputs: dict[str, Any]) -> torch.Tensor:
    """Lists with -1 for whatever is no block."""
    blocks = -(-inputs["k"].shape[2] // plan.select.size)
    lists = inputs["blocks"]
    return torch.where((lists >= 0) & (lists < blocks), lists, -1)


def _listed_keys(plan: RoutedPlan, inputs: dict[str, Any]) -> torch.Tensor:
    """Whether some list of a KV head has a key's block: [batch, kv heads, seq_k]."""
    lists, seq_k = valid_blocks(plan, inputs), inputs["k"].shape[2]
    blocks = -(-seq_k // plan.select.size)
    named = torch.zeros(*lists.shape[:2], blocks + 1, dtype=torch.bool, device=lists.device)
    named.scatter_(2, lists.flatten(2).long() % (blocks + 1), True)
    named = named[..., :blocks].unflatten(1, (inputs["k"].shape[1], -1)).any(2)
    return named.repeat_interleave(plan.select.size, -1)[..., :seq_k]


def reference_inputs(plan: RoutedPlan, inputs: dict[str, Any]) -> dict[str, Any]:
    """The reference's keywords for a call: lists of keys, and zeros for what no query may read."""
    made = {name: value for name, value in inputs.items() if name != "blocks"}
    made |= {name: torch.nan_to_num(inputs[name], nan=0.0) for name in ("k", "v")}
    return {**made, "indices": reference.keys_of_blocks(valid_blocks(plan, inputs), plan.select.size)}


def run_routed(case: RoutedCase) -> Outcome:
    """Launch ``case`` in a process that was started with TRITON_INTERPRET=1, and measure it."""
    import triton

    from attngen.op.routed import RoutedLauncher

    assert triton.knobs.runtime.interpret, "Triton was imported before the interpreter was chosen"
    torch.set_num_threads(1)
    plan, inputs = plan_of(case), make_routed_inputs(case)
    launcher = RoutedLauncher(plan, case.config)
    out, lse = launcher(**inputs)
    for workspace in case.workspaces:
        other, other_lse = RoutedLauncher(plan, case.config, workspace)(**inputs)
        assert torch.equal(out, other) and torch.equal(lse, other_lse)
    return measured(plan, inputs, (out, lse), interpreted=True)


def measured(
    plan: RoutedPlan, inputs: dict[str, Any], results: tuple[torch.Tensor, torch.Tensor], *, interpreted: bool = False
) -> Outcome:
    """The largest share of the error that rounding explains, and that of lse; see attngen/verify/bounds.py.

    What partial results in float16 add is an error of 2**-11 of each weight.
    """
    kind, given, (out, lse) = plan.kind, reference_inputs(plan, inputs), results
    exact, exact_lse = reference.attention(kind, **given)
    if given["indices"].numel() == 0 or given["k"].numel() == 0:
        right = not out.any() and bool(torch.isneginf(lse).all())
        return Outcome(0.0, 0.0, 0.0, 0.0, right, tuple(out.stride()))
    assert out.shape == exact.shape and out.dtype == inputs["q"].dtype
    assert lse.shape == exact_lse.shape and lse.dtype == torch.float32
    unseen = torch.isneginf(exact_lse)
    right = torch.equal(torch.isneginf(lse), unseen) and not out[unseen].any()
    lse_allowed = lse_bound(kind, given, exact_lse, interpreted=interpreted)
    allowed = element_bound(kind, given, exact, lse_allowed)
    if plan.partials == "float16" and kind.dtype == "float16":
        allowed = allowed + UNIT["float16"] * reference.attention(kind, **{**given, "v": given["v"].abs()})[0]
    difference = (out.double() - exact).abs()
    share = torch.where(difference > 0, difference / allowed, 0.0)
    lse_error = (lse.double() - exact_lse).masked_fill(unseen, 0.0).abs()
    return Outcome(
        out_error=float(share.max()) if share.numel() else 0.0,
        out_bound=1.0,
        lse_error=float(lse_error.max()) if lse_error.numel() else 0.0,
        lse_bound=lse_allowed,
        right_rows=bool(right),
        out_strides=tuple(out.stride()),
    )

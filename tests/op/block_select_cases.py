"""Selections of blocks as values that travel to the process that interprets them: scores are exact, lists equal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from attngen import reference
from attngen.config import Config
from attngen.plan.block_select import BlockSelectPlan, plan_block_select
from attngen.spec.model import BlockSelect, Compress, HeadDim, Heads, Kind, Select

INF, NAN = float("inf"), float("nan")
TINY = Config(schedule="portable", BLOCK_Q=16, BLOCK_N=16, num_warps=4, num_stages=1, FLATTEN=False)
SUMMED = TINY.replace(BLOCK_Q=8)
UNTOUCHED = -7


def plan_of(
    *,
    paid: bool = False,
    per: str = "head",
    heads: tuple[int, int] = (2, 1),
    dim: int = 16,
    dtype: str = "float16",
    size: int = 4,
    top_k: int = 3,
    first: int = 0,
    last: int = 0,
    compress: tuple[int, int] = (2, 1),
    scale: float = math.log(2.0),
) -> BlockSelectPlan:
    """With a scale of log(2) and an lse of 0, a whole product pays a power of two."""
    shared = {"heads": Heads(*heads), "head_dim": HeadDim(dim, dim), "dtype": dtype, "causal": True}
    blocks = BlockSelect(size, top_k, first, last, per, by="compressed" if paid else None)
    compressed = Kind("compressed", compress=Compress(*compress), scale=scale, **shared) if paid else None
    return plan_block_select(Kind("blocks", select=Select(blocks=blocks), **shared), compressed)


@dataclass(frozen=True)
class BlockCase:
    """``ranges``: (first, end) of the blocks that each query may take, and ``key_ranges`` of the compressed keys that
    it sees, the same in every sequence; causal queries at the end where there are none. ``special`` puts a number into
    some means, or into lse."""

    plan: BlockSelectPlan
    batch: int = 2
    seq_q: int = 9
    blocks: int = 25
    ranges: tuple[tuple[int, int], ...] | None = None
    key_ranges: tuple[tuple[int, int], ...] | None = None
    special: float | None = None
    values: int = 1  # the largest of q and keys
    strided: bool = False  # q, keys and out cut out of larger tensors
    config: Config = TINY


def inputs_of(case: BlockCase, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Keywords of a launcher's call, of small whole numbers."""
    plan = case.plan
    heads, dim, dtype = plan.kind.heads, plan.kind.head_dim.qk, getattr(torch, plan.kind.dtype)
    generator = torch.Generator().manual_seed(5)

    def whole(*shape: int) -> torch.Tensor:
        made = torch.randint(-case.values, case.values + 1, shape, generator=generator).to(dtype).to(device)
        return made if not case.strided else _within_more(made)

    made = {"q": whole(case.batch, heads.query, case.seq_q, dim)}
    i = torch.arange(case.seq_q, device=device, dtype=torch.int32)
    i = i.repeat(case.batch, 1) + case.blocks * plan.blocks.size - case.seq_q
    made["block_first"], made["block_end"] = _bounds(case, case.ranges, i // plan.blocks.size + 1)
    if plan.compress is None:
        made["keys"] = whole(case.batch, heads.kv, case.blocks, dim)
    else:
        size, stride = plan.compress.size, plan.compress.stride
        count = (case.blocks * plan.blocks.size - size) // stride + 1
        made["keys"] = whole(case.batch, heads.kv, count, dim)
        made["key_first"], made["key_end"] = _bounds(case, case.key_ranges, (i - size + 1) // stride + 1)
        made["lse"] = torch.zeros(case.batch, heads.query, case.seq_q, device=device)
    if case.special is not None:
        some = torch.rand(made["lse" if plan.compress else "keys"].shape[:3], generator=generator).to(device) < 0.2
        values = made["lse"] if plan.compress else made["keys"][..., 0]
        values.masked_fill_(some, case.special)
    return made


def exact_scores(plan: BlockSelectPlan, inputs: dict[str, torch.Tensor], blocks: int) -> torch.Tensor:
    """In float64, (batch, lists, seq_q, blocks); of a compressed branch as the reference has them, by the given
    lse: none is known where that is not finite and a key is seen."""
    q, keys = inputs["q"], inputs["keys"]
    if plan.compress is None:
        return reference.mean_scores(plan.kind, q, keys)
    assert plan.compressed is not None
    size, stride = plan.compress.size, plan.compress.stride
    key = torch.arange(keys.shape[2], device=q.device)
    seen = (key >= inputs["key_first"][..., None]) & (key < inputs["key_end"][..., None])
    s = torch.einsum("bhtd,bhnd->bhtn", q.double(), keys.repeat_interleave(plan.kind.heads.group, 1).double())
    p = torch.exp2(torch.round(s * plan.compressed.scale / math.log(2.0)) - inputs["lse"][..., None].double())
    p = p.masked_fill(~seen[:, None], 0.0).masked_fill(
        ~inputs["lse"].isfinite()[..., None] & seen.any(-1)[:, None, :, None], NAN
    )
    starts, edges = key[:, None] * stride, torch.arange(blocks, device=q.device) * plan.blocks.size
    within = torch.minimum(starts + size, edges + plan.blocks.size) - torch.maximum(starts, edges)
    paid = p @ (within.clamp_min(0) / stride).double()
    return paid if plan.heads == 1 else paid.unflatten(1, (-1, plan.heads)).sum(2)


def stable_lists(plan: BlockSelectPlan, scores: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The reference's, all rows at once: by score, then what is always taken first, what is out of bounds last."""
    number = scores.shape[-1]
    first, end = (inputs[name][:, None, :, None] for name in ("block_first", "block_end"))
    first, end = first.clamp_min(0), end.clamp_max(number)
    place = torch.arange(number, device=scores.device)
    always = (place < first + plan.blocks.first) | (place >= end - plan.blocks.last)
    rank = torch.where((place >= first) & (place < end), torch.where(always, 0, 1), 2).expand(scores.shape)
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    order = order.gather(-1, torch.sort(rank.gather(-1, order), dim=-1, stable=True).indices)[..., : plan.blocks.top_k]
    chosen = order.masked_fill(rank.gather(-1, order) == 2, number).sort(-1).values
    missing = plan.blocks.top_k - chosen.shape[-1]
    return torch.nn.functional.pad(chosen.masked_fill(chosen == number, -1), (0, missing), value=-1).int()


def run_blocks(case: BlockCase, device: str = "cpu") -> list[str]:
    """What is wrong with the lists of a call; nothing if all is well."""
    from attngen.op.block_select import BlockSelectLauncher

    plan, inputs = case.plan, inputs_of(case, device)
    scores = exact_scores(plan, inputs, case.blocks)
    right = stable_lists(plan, scores, inputs)
    shape = (case.batch, scores.shape[1] + 1, case.seq_q + 1, plan.blocks.top_k + 1)
    memory = torch.full(shape, UNTOUCHED, dtype=torch.int32, device=device)
    out = memory[:, :-1, :-1, :-1] if case.strided else torch.full_like(right, UNTOUCHED)
    launcher = BlockSelectLauncher(plan, case.config)
    made = launcher(**inputs, out=out)
    wrong = [] if made is out else ["out is another tensor"]
    if device == "cpu":
        bounds = [inputs[name][:, None].expand(scores.shape[:3]).flatten() for name in ("block_first", "block_end")]
        fixed = {"first": plan.blocks.first, "last": plan.blocks.last}
        wrong += (
            []
            if torch.equal(
                right.flatten(0, 2), reference.select_keys(scores.flatten(0, 2), *bounds, plan.blocks.top_k, **fixed)
            )
            else ["the lists that are taken for right are not the reference's"]
        )
    if not torch.equal(out, right):
        row = (out != right).any(-1).nonzero()[0].tolist()
        wrong.append(f"{int((out != right).any(-1).sum())} rows differ; {row}: {out[tuple(row)]}, {right[tuple(row)]}")
    out.fill_(UNTOUCHED)
    if not bool((memory == UNTOUCHED).all()):
        wrong.append("something beside the lists was written")
    return wrong


def interpreted_blocks(case: BlockCase) -> list[str]:
    torch.set_num_threads(1)
    return run_blocks(case)


def _within_more(x: torch.Tensor) -> torch.Tensor:
    """The same numbers, cut out of a tensor in which they lie heads last and all else is NaN."""
    batch, heads, rows, dim = x.shape
    wide = torch.full((batch, rows + 1, heads + 1, dim + 8), NAN, dtype=x.dtype, device=x.device)
    return wide[:, :rows, :heads, :dim].copy_(x.transpose(1, 2)).transpose(1, 2)


def _bounds(
    case: BlockCase, ranges: tuple[tuple[int, int], ...] | None, causal_end: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    if ranges is None:
        return torch.zeros_like(causal_end), causal_end
    given = (torch.tensor(side, dtype=torch.int32, device=causal_end.device) for side in zip(*ranges, strict=True))
    first, end = (side.repeat(case.batch, 1) for side in given)
    return first, end

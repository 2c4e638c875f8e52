"""One call of one config of a kind, as a value that travels to the process that runs it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from attngen.config import Config
from attngen.inputs import make_inputs
from attngen.spec.expression import Expression
from attngen.spec.model import HeadDim, Heads, Kind
from attngen.tuner.checks import TOLERANCE
from attngen.verify.judge import l2_error
from attngen.verify.rounding import repair_interpreter

NAN = float("nan")


@dataclass(frozen=True)
class Case:
    """``kind`` run with ``config`` at some sizes. ``key_range`` and ``offsets`` hold one entry a sequence."""

    kind: Kind
    config: Config
    seq_q: int = 37
    seq_k: int = 37
    batch: int = 2
    key_range: tuple[tuple[int, int], ...] | None = None  # what lies outside is NaN
    offsets: tuple[int, ...] | None = None
    strided: bool = False  # (batch, sequence, heads, dim) views, cut out of wider tensors
    seed: int = 0
    equal_values: bool = False  # all of v the same, so that errors of weights add up
    ends: tuple[tuple[int, ...], tuple[int, ...]] | None = None  # cu_seqlens_q and _k; tokens after the last are NaN
    scales: tuple[tuple[str, bool], ...] = ()  # (name, whether there is one a head) where not as make_inputs does


@dataclass(frozen=True)
class Outcome:
    """How far a kernel's results are from the reference's, and how far rounding may take them."""

    out_error: float  # largest absolute error; of FP8, relative L2
    out_bound: float
    lse_error: float
    lse_bound: float
    right_rows: bool  # lse is -inf and out 0 exactly where the reference says
    out_strides: tuple[int, ...]


def kind_of(
    heads: tuple[int, int] = (2, 1),
    head_dim: tuple[int, int] = (16, 16),
    mask: str | None = None,
    score: str | None = None,
    dtype: str = "float16",
    **fields: Any,
) -> Kind:
    return Kind(
        name="kind",
        heads=Heads(*heads),
        head_dim=HeadDim(*head_dim),
        dtype=dtype,  # type: ignore[arg-type]
        scale=fields.pop("scale", head_dim[0] ** -0.5),
        mask=None if mask is None else Expression.parse(mask, "mask"),
        score=None if score is None else Expression.parse(score, "score"),
        **fields,
    )


def config_of(**values: Any) -> Config:
    """A small portable config; ``schedule="window"`` masks every tile, as it must."""
    base = {"schedule": "portable", "BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1, "loads": "pointer"}
    base |= {"PACK_HEADS": 1, "SPLIT_MASKS": values.get("schedule") != "window", "HEADS_TOGETHER": 1, "maxnreg": None}
    return Config(**{**base, **values})


def inputs_of(case: Case) -> dict[str, Any]:
    """The keywords of the call. A tensor called ``doc...`` holds few whole numbers, to be compared with each other."""
    inputs = make_inputs(case.kind, case.batch, case.seq_q, case.seq_k, device="cpu", seed=case.seed)
    generator = torch.Generator().manual_seed(case.seed)
    for name, value in inputs.items():
        if name.startswith("doc"):
            inputs[name] = torch.randint(0, 3, value.shape, generator=generator, dtype=torch.int32)
    if case.equal_values:
        inputs["v"].fill_(1.0)
    for name, per_head in case.scales:
        heads, scale = inputs[name[0]].shape[1], inputs[name].reshape(-1)[:1]
        inputs[name] = scale * (1 + torch.arange(heads)) if per_head else scale
    if case.offsets is not None:
        inputs["offsets"] = torch.tensor(case.offsets, dtype=torch.int32)
    if case.key_range is not None:
        inputs["key_range"] = torch.tensor(case.key_range, dtype=torch.int32)
        for b, (first, end) in enumerate(case.key_range):
            for name in ("k", "v"):
                inputs[name][b, :, : max(first, 0)] = NAN
                inputs[name][b, :, max(end, 0) :] = NAN
    for side, ends in zip("qk", case.ends or (), strict=False):
        inputs[f"cu_seqlens_{side}"] = torch.tensor(ends, dtype=torch.int32)
        for name in ("k", "v") if side == "k" else ("q",):
            inputs[name][:, :, ends[-1] :] = NAN
    if case.strided:
        for name in ("q", "k", "v"):
            inputs[name] = strided(inputs[name])
    return inputs


def strided(tensor: torch.Tensor) -> torch.Tensor:
    """The same values as a view of a wider (batch, sequence, heads, dim) tensor, all else NaN."""
    batch, heads, length, dim = tensor.shape
    wide = torch.full((batch, length, heads + 1, dim + 8), NAN, dtype=tensor.dtype, device=tensor.device)
    view = wide[:, :, :heads, :dim].transpose(1, 2)
    return view.copy_(tensor)


def run(case: Case) -> Outcome:
    """Launch ``case`` and measure it. The interpreter's Triton must be the one this process has imported."""
    from attngen import reference
    from attngen.op.launch import Launcher
    from attngen.plan import plan_forward

    inputs = inputs_of(case)
    out, lse = Launcher(plan_forward(case.kind), case.config)(**inputs)
    exact_out, exact_lse = reference.attention(case.kind, **inputs)
    assert out.shape == exact_out.shape
    assert out.dtype == getattr(torch, case.kind.out_dtype)
    assert (lse.shape, lse.dtype) == (exact_lse.shape, torch.float32)
    unseen = exact_lse == -math.inf
    right = torch.equal(lse == -math.inf, unseen) and not out[unseen].any()
    out_bound, lse_bound = bounds(case, inputs["v"], exact_lse.masked_fill(unseen, 0.0))
    return Outcome(
        out_error=l2_error(out, exact_out) if case.kind.quantised else largest(out - exact_out),
        out_bound=out_bound,
        lse_error=largest((lse - exact_lse).masked_fill(unseen, 0.0)),
        lse_bound=lse_bound,
        right_rows=bool(right),
        out_strides=tuple(out.stride()),
    )


def bounds(case: Case, v: torch.Tensor, lse: torch.Tensor) -> tuple[float, float]:
    """Largest errors of out and lse that rounding explains.

    Scores: a sum of ``qk`` products in float32 and a few operations after it, of numbers that exceed the lse little;
    an error of a score is a relative error of its probability. Probabilities and out are rounded to the dtype once
    each, half a unit in the last place. Of FP8, what the tuner allows.
    """
    terms = case.kind.head_dim.qk + max(case.seq_k, 1) + 16
    scores = 2.0**-24 * terms * (largest(lse) + 8.0)
    if case.kind.quantised:
        return TOLERANCE[case.kind.dtype], scores
    half_ulp = {"float16": 2.0**-11, "float32": 2.0**-24}[case.kind.dtype]
    return largest(torch.nan_to_num(v.double(), nan=0.0)) * 2.0 * (half_ulp + scores), scores


def largest(values: torch.Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def begin_interpreting() -> None:
    """In a process that was started with TRITON_INTERPRET=1, before its first case."""
    import triton

    assert triton.knobs.runtime.interpret, "Triton was imported before the interpreter was chosen"
    torch.set_num_threads(1)
    repair_interpreter()
    # Whether a sum of integers overflows is looked at for every one, in a quarter of the time; a GPU does not look.
    builder = triton.runtime.interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=False)

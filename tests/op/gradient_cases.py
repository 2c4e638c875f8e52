"""Gradients of one call by the kernels of a backward pass, as a value that travels to the process that runs it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from attngen import reference
from attngen.config import Config
from attngen.op import learned
from attngen.op.choose import Chosen
from attngen.op.gradients import Gradients
from attngen.op.launch import Launcher
from attngen.plan import plan_forward
from attngen.plan.boxes import is_gluon
from attngen.spec.learned import learned_arguments
from attngen.spec.model import Kind
from tests.op.cases import Case, inputs_of, largest, strided

HALF_ULP = {"float16": 2.0**-11, "float32": 2.0**-24, "bfloat16": 2.0**-8}
LEAST_NORMAL = {"float16": 2.0**-14, "float32": 2.0**-126, "bfloat16": 2.0**-126}
ROUNDINGS = 4  # of a weight or its gradient, of out in delta, of the result, and what float32 adds


@dataclass(frozen=True)
class Shares:
    """How far each gradient is from the reference's, as a share of what rounding explains: at most 1 is right."""

    of: dict[str, float]
    repeated: bool  # a second run gave the same bits, where there was one
    strides: dict[str, tuple[int, ...]]


def tiles(block_m: int = 16, block_n: int = 16) -> Config:
    return Config(schedule="portable", BLOCK_M=block_m, BLOCK_N=block_n, num_warps=4, num_stages=1)


def run(
    case: Case,
    of_lse: bool = False,
    wanted: tuple[str, ...] = (),
    twice: bool = False,
    strip_bytes: int | None = None,
    device: str = "cpu",
    configs: Mapping[str, Config] | None = None,
) -> Shares:
    """Forward and backward of ``case``; its config is that of the forward kernel, whose tiles the others have too.

    ``of_lse``: lse has a gradient as well. ``wanted``: names of the gradients that are asked for, default all.
    ``configs``: of backward kernels that have another one.
    """
    kind = case.kind
    inputs = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in inputs_of(case).items()}
    out, lse = Launcher(plan_forward(kind), case.config)(**inputs)
    generator = torch.Generator().manual_seed(case.seed + 100)
    dout = torch.randn(out.shape, generator=generator).to(out)
    dlse = torch.randn(lse.shape, generator=generator).to(lse).mT.contiguous().mT if of_lse else None
    if case.strided:
        dout = strided(dout)
    most = dict(learned.STRIP_BYTES)
    learned.STRIP_BYTES.update({} if strip_bytes is None else dict.fromkeys(most, strip_bytes))
    made = gradients_by_kernels(case, inputs, out, lse, dout, dlse, wanted, configs or {})
    learned.STRIP_BYTES.update(most)
    again = gradients_by_kernels(case, inputs, out, lse, dout, dlse, wanted, configs or {}) if twice else made
    exact = exact_gradients(kind, inputs, dout, dlse)
    allowed = gradient_bounds(case, inputs, dout, dlse, lse)
    shares = {}
    for name, found in made.items():
        assert (found.shape, found.dtype) == (inputs[name].shape, inputs[name].dtype), name
        error = (found.double() - exact[name]).abs()
        share = torch.where(error == 0, 0.0, error / allowed[name])
        shares[name] = math.inf if bool(share.isnan().any()) else largest(share)
    repeated = all(torch.equal(made[name], again[name]) for name in made)
    return Shares(shares, repeated, {name: tuple(found.stride()) for name, found in made.items()})


def gradients_by_kernels(
    case, inputs, out, lse, dout, dlse, wanted: tuple[str, ...], configs: Mapping[str, Config]
) -> dict[str, torch.Tensor]:
    """By name; those that are not ``wanted`` are left out."""
    made = Gradients(case.kind, db="sqlite://")
    small = tiles(int(case.config["BLOCK_M"] or 16), int(case.config["BLOCK_N"] or 16))
    for launchers in (made._rows, made._kv, made._q, made._elements):
        if launchers is not None:
            launchers.chooser = Fixed(configs.get(launchers.plan.kernel, small))
    if made._fused is not None:
        made._fused.chooser = Fixed(configs.get("backward_fused", small))
        made._fuses = lambda *sizes: "backward_fused" in configs  # at any length, or not at all
    extras = [inputs.get(name) for name in made._keywords]
    asked = [not wanted or name in wanted for name in made.names]
    found = made.cuda(dout, dlse, inputs["q"], inputs["k"], inputs["v"], out, lse, *extras, asked)
    return {name: x for name, x, ask in zip(made.names, found, asked, strict=True) if ask}


@dataclass
class Fixed:
    """A chooser of one config."""

    config: Config

    def at(self, problem: Any, *, gluon: bool = True) -> Chosen:
        assert gluon or not is_gluon(self.config)
        return Chosen(self.config, "fixed")


def exact_gradients(kind: Kind, inputs: dict[str, Any], dout, dlse) -> dict[str, torch.Tensor]:
    """By autograd through the float64 reference of the forward pass; by the reference's own formulas where autograd
    multiplies a hidden key's 0 by a derivative that is not finite."""
    leaves = {}
    for name in ("q", "k", "v", *learned_arguments(kind)):
        leaves[name] = torch.nan_to_num(inputs[name].double(), nan=0.0).requires_grad_()
    out, lse = reference.attention(kind, **{**inputs, **leaves})
    loss = (out * dout.double()).sum()
    if dlse is not None:
        loss = loss + torch.where(torch.isfinite(lse), lse, 0.0).mul(dlse.double()).sum()
    if not loss.requires_grad:  # no key at all
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    zeros = (torch.zeros_like(leaf) if x is None else x for x, leaf in zip(found, leaves.values(), strict=True))
    exact = dict(zip(leaves, zeros, strict=True))
    if all(bool(torch.isfinite(x).all()) for x in exact.values()):
        return exact
    return reference.gradients(kind, dout, dlse, **inputs)


def gradient_bounds(case: Case, inputs: dict[str, Any], dout, dlse, lse) -> dict[str, torch.Tensor]:
    """Largest errors that rounding explains, element by element.

    Each gradient is a sum of products; what is rounded is a weight, its gradient, delta by way of out, and the result.
    With every factor replaced by its size, and a weight's gradient by the sizes of the sums it is a difference of, the
    same sums bound what is lost.
    """
    kind = case.kind
    finite = torch.where(torch.isfinite(lse), lse, 0.0)
    scores = 2.0**-24 * (kind.head_dim.qk + max(case.seq_k, 1) + 16) * (largest(finite) + 8.0)
    loss = ROUNDINGS * (HALF_ULP[kind.dtype] + scores)
    least, rough = LEAST_NORMAL[kind.dtype], 2.0**-22 / loss
    sizes = reference.gradient_sizes(kind, dout, dlse, least=least, rough=rough, **inputs)
    return {name: loss * size + loss * LEAST_NORMAL[kind.dtype] for name, size in sizes.items()}

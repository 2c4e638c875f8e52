"""A kernel's result against the right answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from attngen.verify.finding import Finding, failed


@dataclass(frozen=True)
class Answer:
    """What is right for one case, and how much error is allowed: overall, relative and L2, or element by element."""

    out: torch.Tensor
    lse: torch.Tensor
    lse_allowed: float
    l2_allowed: float | None = None
    element_allowed: torch.Tensor | None = None


def judge(base: Finding, out: torch.Tensor, lse: torch.Tensor, answer: Answer) -> Finding:
    """``base`` with what comes of comparing a kernel's result with the answer; the first thing wrong is its fault."""
    base = replace(base, lse_allowed=answer.lse_allowed)
    empty = torch.isneginf(answer.lse)
    if bool(torch.isnan(out).any() | torch.isnan(lse).any()):
        return failed(base, "NaN")
    if not bool(torch.isfinite(out).all()):
        return failed(base, "an infinite result")
    if bool((out[empty] != 0).any()) or not bool(torch.isneginf(lse[empty]).all()):
        return failed(base, "rows that see no key do not give 0 and lse -inf")
    error, allowed = _error(out.double(), answer)
    difference = (lse.double() - answer.lse.double()).masked_fill(empty, 0.0)
    lse_error = float(difference.abs().max()) if difference.numel() else 0.0
    found = replace(base, error=error, allowed=allowed, lse_error=lse_error)
    if not error <= allowed:
        return failed(found, "the error is larger than rounding explains")
    if not lse_error <= answer.lse_allowed:
        return failed(found, "lse is off by more than rounding explains")
    return found


def l2_error(out: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative L2 error; absolute where the exact result is nothing but zeros."""
    size = float(exact.norm())
    return float((out.double() - exact).norm()) / (size or 1.0)


def _error(out: torch.Tensor, answer: Answer) -> tuple[float, float]:
    if answer.element_allowed is None:
        assert answer.l2_allowed is not None
        return l2_error(out, answer.out), answer.l2_allowed
    return worst_share(out, answer.out, answer.element_allowed), 1.0


def worst_share(found: torch.Tensor, exact: torch.Tensor, allowed: torch.Tensor) -> float:
    """The largest error of an element, as a share of what it may be."""
    difference = (found - exact).abs()
    share = torch.where(difference > 0, difference / allowed, 0.0)
    return float(share.max()) if share.numel() else 0.0

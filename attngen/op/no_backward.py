"""Calls whose gradients are recorded: their backward pass says that it is not generated yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from attngen.errors import NotGeneratedError


def without_backward(call: Callable, kind: str, *tensors: Any) -> Any:
    """``call`` of tensors, some of which may require gradients, and others may be None."""
    if torch.is_grad_enabled() and any(isinstance(x, torch.Tensor) and x.requires_grad for x in tensors):
        return _Forward.apply(call, kind, *tensors)
    return call(*tensors)


class _Forward(torch.autograd.Function):
    """Lets a forward pass run where gradients are recorded, and says clearly that they stop here."""

    @staticmethod
    def forward(ctx: Any, call: Callable, kind: str, *tensors: Any) -> Any:
        ctx.kind = kind
        return call(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotGeneratedError(
            f"kind '{ctx.kind}': the backward pass is not generated yet; "
            "call it under torch.no_grad() or torch.inference_mode()"
        )

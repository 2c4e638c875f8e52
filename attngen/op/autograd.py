"""The operator of a kind that PyTorch differentiates: it computes what the forward operator does, and another operator
its gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from attngen.database import Database
from attngen.errors import NotGeneratedError
from attngen.op.checks import keywords_of
from attngen.op.gradients import INPUTS, Gradients
from attngen.op.register import Implementation, latest_operator, parameters, schema
from attngen.plan.backward import why_no_backward


def records_gradients(tensors: Sequence[Any]) -> bool:
    """Whether PyTorch will differentiate a call of these; NotGeneratedError for forward-mode derivatives, of which
    operators would make zeros, and for PyTorch's transforms of functions, which take no such operators."""
    if in_forward_mode() and any(isinstance(x, torch.Tensor) and has_tangent(x) for x in tensors):
        raise NotGeneratedError("forward-mode derivatives (torch.func.jvp, forward_ad) are not generated")
    records = torch.is_grad_enabled() and any(isinstance(x, torch.Tensor) and x.requires_grad for x in tensors)
    if records and is_transformed():
        raise NotGeneratedError(
            "torch.func's gradients (grad, vjp, jacrev) are not supported; torch.autograd.grad and backward() are"
        )
    return records


def in_forward_mode() -> bool:
    """Whether there can be tangents: a tenth of a microsecond, where looking at each tensor takes five."""
    return getattr(forward_ad, "_current_level", 0) >= 0 and not torch.compiler.is_compiling()


def is_transformed() -> bool:
    """Whether a gradient of torch.func is being made."""
    if torch.compiler.is_compiling():
        return False
    transform = torch._C._functorch.peek_interpreter_stack()
    return transform is not None and transform.key() == torch._C._functorch.TransformType.Grad


def has_tangent(tensor: torch.Tensor) -> bool:
    """Whether forward-mode differentiation is on its way through it."""
    return forward_ad.unpack_dual(tensor).tangent is not None


def trained_operator(name: str, forward: Implementation, db: Database | str | None) -> Callable:
    """The operator ``attngen::{name}_trained``, which computes ``forward``; ``attngen::{name}_backward`` makes its
    gradients, and has none of its own. A kind without a backward pass says so when gradients are asked for."""
    kind = forward.plan.kind
    reason = why_no_backward(kind)
    if reason is not None:
        autograd = Autograd(no_gradients(f"kind '{kind.name}' {reason}"))
    else:
        made = Gradients(kind, db)
        twice = Autograd(no_gradients(f"kind '{kind.name}': gradients of gradients are not generated"))
        backward = latest_operator(f"{name}_backward", backward_schema(forward), made, twice)
        autograd = Recorded(forward, made, backward)
    return latest_operator(f"{name}_trained", schema(forward.plan), forward, autograd)


def backward_schema(forward: Implementation) -> str:
    """What the backward operator takes: gradients of the results, what the forward operator took and made, and which
    inputs' gradients are wanted."""
    inputs = [text.removesuffix("=None") for text in parameters(forward.plan)]
    held = [*inputs[: len(INPUTS)], "Tensor out", "Tensor lse", *inputs[len(INPUTS) :]]
    return f"({', '.join(['Tensor dout', 'Tensor? dlse', *held, 'bool[] wanted'])}) -> Tensor[]"


def no_gradients(message: str) -> Callable[..., Any]:
    """A backward function that says why there is none."""

    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotGeneratedError(message)

    return backward


class Autograd:
    """What ``torch.library.register_autograd`` takes."""

    def __init__(self, backward: Callable[..., Any]) -> None:
        self.backward = backward

    def setup_context(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is kept where there is no backward pass."""


class Recorded(Autograd):
    """Keeps q, k, v, out, lse and what the call gave besides."""

    def __init__(self, forward: Implementation, made: Gradients, operator: Callable) -> None:
        super().__init__(self._backward)
        names = (*INPUTS, *keywords_of(forward.plan))
        self._places = [names.index(name) for name in made.names]  # of what has a gradient, among the inputs
        self._count = len(names)
        self._operator = operator
        self._check = made.check

    def setup_context(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        self._check(self._wanted(ctx))
        kept = [x if isinstance(x, torch.Tensor) else None for x in inputs]
        ctx.numbers = [None if isinstance(x, torch.Tensor) else x for x in inputs]
        ctx.save_for_backward(*kept, *output)
        ctx.set_materialize_grads(False)

    def _wanted(self, ctx: Any) -> list[bool]:
        """Of what has a gradient, whether it is asked for."""
        return [bool(ctx.needs_input_grad[place]) for place in self._places]

    def _backward(self, ctx: Any, dout: torch.Tensor | None, dlse: torch.Tensor | None) -> tuple[Any, ...]:
        *kept, out, lse = ctx.saved_tensors
        inputs = [number if x is None else x for x, number in zip(kept, ctx.numbers, strict=True)]
        dout = torch.zeros_like(out) if dout is None else dout
        wanted = self._wanted(ctx)
        qkv, extras = inputs[: len(INPUTS)], inputs[len(INPUTS) :]
        made = self._operator(dout, dlse, *qkv, out, lse, *extras, wanted)
        results: list[Any] = [None] * self._count
        for place, want, gradient in zip(self._places, wanted, made, strict=True):
            results[place] = gradient if want else None
        return tuple(results)

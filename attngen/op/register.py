"""One PyTorch operator a kind: schema, kernels for GPU and CPU, and shapes for tracing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch

from attngen import reference
from attngen.database import Database
from attngen.op import ready
from attngen.op.arguments import empty_outputs
from attngen.op.checks import check_call, keywords_of
from attngen.op.choose import Chooser
from attngen.op.compiled import put_back
from attngen.op.launch import Kept, Launcher, Prepared, signature_of
from attngen.plan.forward import ForwardPlan
from attngen.spec.model import Kind

NAMESPACE = "attngen"
_library = torch.library.Library(NAMESPACE, "FRAGMENT")
# The one cache of this package: operators cannot be defined twice.
_registered: dict[str, tuple[Callable, Any]] = {}


class Computes(Protocol):
    """What an operator does with its arguments, in the order of its schema, on each device."""

    @property
    def cuda(self) -> Callable[..., Any]: ...

    @property
    def cpu(self) -> Callable[..., Any]: ...

    @property
    def fake(self) -> Callable[..., Any]:
        """Gives results of the right shapes, of which nothing is computed."""


Made = TypeVar("Made", bound=Computes)


class Differentiates(Protocol):
    """What PyTorch asks of an operator's gradients, as ``torch.library.register_autograd`` takes it."""

    def setup_context(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None: ...

    @property
    def backward(self) -> Callable[..., Any]: ...


def defined(
    name: str, schema: str, make: Callable[[], Made], autograd: Differentiates | None = None
) -> tuple[Callable, Made]:
    """The operator ``attngen::name`` and what computes it, which ``make`` gives where it is not defined yet.

    Without ``autograd`` gradients are not recorded, and a call costs less for it.
    """
    if name not in _registered:
        _library.define(f"{name}{schema}")
        made = make()
        _library.impl(name, made.cuda, "CUDA")
        _library.impl(name, made.cpu, "CPU")
        torch.library.register_fake(f"{NAMESPACE}::{name}", made.fake, lib=_library)
        if autograd is None:
            _library.impl(name, torch.library.fallthrough_kernel, "Autograd")
        else:
            torch.library.register_autograd(
                f"{NAMESPACE}::{name}", autograd.backward, setup_context=autograd.setup_context, lib=_library
            )
        _registered[name] = (getattr(getattr(torch.ops, NAMESPACE), name).default, made)
    return _registered[name]


def operator(name: str, plan: ForwardPlan, chooser: Chooser) -> tuple[Callable, Implementation]:
    """The operator ``attngen::name`` of a forward kernel, (q, k, v, *keywords) -> (out, lse), and what computes it.

    Its configs come from ``chooser`` from now on: a spec loaded again sees what was tuned in between.
    """
    call, implementation = defined(name, schema(plan), lambda: Implementation(plan, chooser))
    implementation.choose_with(chooser)
    return call, implementation


class Latest:
    """What an operator computes, by whatever was given last: an op that is made again has looked nothing up yet."""

    def __init__(self) -> None:
        self.by: Any = None

    def cuda(self, *arguments: Any) -> Any:
        return self.by.cuda(*arguments)

    def cpu(self, *arguments: Any) -> Any:
        return self.by.cpu(*arguments)

    def fake(self, *arguments: Any) -> Any:
        return self.by.fake(*arguments)


def latest_operator(name: str, schema: str, by: Computes, autograd: Differentiates | None = None) -> Callable:
    """The operator ``attngen::name``, computed by ``by`` from now on."""
    call, latest = defined(name, schema, Latest, autograd)
    latest.by = by
    return call


def operator_name(spec: str, kind: Kind, db: Database | str | None) -> str:
    """A name of the op for traces and profiles; a schema's names begin with no digit."""
    url = "" if db is None else hashlib.sha256(repr(db).encode()).hexdigest()[:6]
    return re.sub(r"^(?=\d)|\W", "_", f"{spec}_{kind.name}_{kind.digest()}{url}")


def parameters(plan: ForwardPlan) -> list[str]:
    """What a forward operator takes, as a schema says it."""
    parts = ["Tensor q", "Tensor k", "Tensor v"]
    for argument in plan.arguments:
        parts.append(f"{'float' if argument.shape == 'scalar' else 'Tensor'} {argument.name}")
    return [*parts, "Tensor? offsets=None", "Tensor? key_range=None"]


def schema(plan: ForwardPlan) -> str:
    return f"({', '.join(parameters(plan))}) -> (Tensor, Tensor)"


class Implementation:
    """What an operator does on each device."""

    def __init__(self, plan: ForwardPlan, chooser: Chooser) -> None:
        self.plan = plan
        self.chooser = chooser
        self._keywords = keywords_of(plan)
        self._launchers: dict[Any, Launcher] = {}
        self._kept: Kept[Prepared] = Kept()

    def choose_with(self, chooser: Chooser) -> None:
        if chooser is not self.chooser:
            self.chooser = chooser
            self._kept.clear()

    def cuda(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *extras: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if len(extras) < len(self._keywords):
            extras = self._padded(extras)
        key = signature_of((q, k, v, *extras))
        prepared = self._kept.get(key)
        if prepared is None:
            prepared = self._prepare(key, q, k, v, extras)
        return prepared(q, k, v, extras)

    def cpu(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *extras: Any) -> tuple[torch.Tensor, torch.Tensor]:
        extras = self._padded(extras)
        named = dict(zip(self._keywords, extras, strict=True))
        check_call(self.plan, q, k, v, named)
        exact_out, exact_lse = reference.attention(self.plan.kind, q, k, v, **named)
        out, lse = self._outputs(q)
        return out.copy_(exact_out), lse.copy_(exact_lse)

    def fake(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *extras: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        check_call(self.plan, q, k, v, dict(zip(self._keywords, self._padded(extras), strict=True)))
        return self._outputs(q)

    def _outputs(self, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return empty_outputs(q, self.plan.kind.head_dim.v, getattr(torch, self.plan.kind.out_dtype))

    def _padded(self, extras: tuple) -> tuple:
        """Optional tensors that the caller left out arrive as nothing at all."""
        return extras + (None,) * (len(self._keywords) - len(extras))

    def _prepare(self, key: tuple, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extras: tuple) -> Prepared:
        check_call(self.plan, q, k, v, dict(zip(self._keywords, extras, strict=True)))
        if q.device.type == "cuda":
            ready.begin()
        config = self.chooser(q, k, v).config
        launcher = self._launchers.get(config)
        if launcher is None:
            launcher = self._launchers[config] = Launcher(self.plan, config)
            if q.device.type == "cuda":
                for source in launcher.sources():
                    put_back(self.chooser.kernels(source))
        return self._kept.keep(key, launcher.prepare(q, k, v, extras))

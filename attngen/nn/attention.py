"""The attention of one layer as a module: projections if they are asked for, an op, and what its scores learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import torch

from attngen.errors import CallError, NotGeneratedError
from attngen.nn.learned import owned
from attngen.op.attention import kind_of_layer, make_op, spec_of
from attngen.op.autograd import records_gradients
from attngen.op.checks import check_tensor
from attngen.op.kind import KindOp, autocast
from attngen.plan.backward import why_no_backward
from attngen.spec import Spec
from attngen.spec.model import Kind

Tensor = torch.Tensor
Rotary = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Attention(torch.nn.Module):
    """The attention of one layer of a spec.

    >>> attention = attngen.nn.Attention("examples/gemma-3-4b.yaml", layer=5, dim=2560)
    >>> y = attention(x)  # (batch, sequence, dim)
    >>> attention = attngen.nn.Attention("examples/gemma-3-4b.yaml", layer=5)
    >>> out = attention(q, k, v)  # (batch, sequence, heads, head_dim)

    Of a kind with documents x is (tokens, dim), q, k and v are (tokens, heads, head_dim), and so are the results:

    >>> y = attention(x, cu_seqlens_q=ends)  # (tokens, dim)

    spec: path of a YAML file, or a Spec. dim: width of x; with it the module has ``q_proj``, ``k_proj``, ``v_proj`` and
    ``o_proj``, with ``bias`` if that is True, and ``rotary(q, k) -> (q, k)``, a function or module, turns what they
    make, (batch, sequence, heads, head_dim), by its positions; of packed tokens those in their documents. db: where
    tuned configs are looked up, as for ``attngen.load``. device and dtype: of the parameters.

    A ``sink`` is a parameter, at first 0; ``alibi_slopes`` are a buffer of the paper's slopes. ``learned`` makes
    parameters of what else the score reads, by name and shape: ``{"bias": (12, 129)}``, at first 0, or
    ``{"alibi_slopes": (12,)}``. Of branches they are called as the op's keywords, ``NAME_sink``.

    Kernels compute in the spec's dtype, whatever that of the parameters and of x, but for float64, which would lose by
    it and is refused: ``Spec.with_dtype`` gives another.
    Tensors on a CPU take the float64 reference. Raises CallError for what does not fit the spec, SpecError for a spec
    that is wrong, and NotGeneratedError for kinds whose kernels do not exist yet.
    """

    def __init__(
        self,
        spec: str | PathLike[str] | Spec,
        *,
        layer: int,
        dim: int | None = None,
        bias: bool = False,
        rotary: Rotary | None = None,
        learned: Mapping[str, Sequence[int]] | None = None,
        db: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        spec = spec_of(spec)
        self.kind = kind_of_layer(spec, layer)
        self.layer = layer
        self.dim = dim
        self.rotary = rotary
        self._spec = spec.name
        self._db = db
        self._make_op()
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        if dim is not None:
            self._make_projections(dim, bias, made)
        elif bias or rotary is not None:
            raise CallError("bias and rotary are of projections, which a module without 'dim' does not have")
        self._owned = owned(self.kind, learned or {})
        for name, one in self._owned.items():
            if hasattr(self, name):
                raise CallError(f"'{name}' cannot be a parameter, as a module has something else of that name")
            value = torch.empty(one.shape, **made)
            if one.trained:
                self.register_parameter(name, torch.nn.Parameter(value))
            else:
                self.register_buffer(name, value)
        self.reset_parameters()

    def _make_op(self) -> None:
        self._op: Any = make_op(self._spec, self.kind, self._db)
        if isinstance(self._op, KindOp):
            _ = self._op.plan  # says that it is not generated, if it is not

    def _make_projections(self, dim: int, bias: bool, made: dict[str, Any]) -> None:
        kind = self.kind
        if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
            raise CallError(f"dim is {dim!r}; the width of x, a positive whole number, is needed")
        if kind.latent is not None or kind.quantised:
            what = "attends to a latent" if kind.latent is not None else f"takes {kind.dtype} and its scales"
            raise CallError(f"kind '{kind.name}' {what}, which plain projections do not make; leave 'dim' out")
        heads, widths = kind.heads, kind.head_dim
        self.q_proj = torch.nn.Linear(dim, heads.query * widths.qk, bias, **made)
        self.k_proj = torch.nn.Linear(dim, heads.kv * widths.qk, bias, **made)
        self.v_proj = torch.nn.Linear(dim, heads.kv * widths.v, bias, **made)
        self.o_proj = torch.nn.Linear(heads.query * widths.v, dim, bias, **made)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Sinks, slopes and what else a score reads as they were at first; projections have a method of their own."""
        for name, one in self._owned.items():
            getattr(self, name).copy_(one.first_value())

    def forward(
        self, x: Tensor, k: Tensor | None = None, v: Tensor | None = None, *, return_lse: bool = False, **keywords: Any
    ) -> Any:
        """Attention of x (batch, sequence, dim) to itself, in its shape; without ``dim`` of q, k and v, each (batch,
        sequence, heads, head_dim), in q's shape with the values' head_dim.

        keywords: as the layer's op takes them, but for what the module owns: ``offsets``, ``key_range``, ``prefix``,
        ``cu_seqlens_q``, ``blocks``, tensors and numbers of expressions, ``indices``, ``gates``. v is left out for a
        latent kind. The result has the dtype of the values; with ``return_lse`` lse (batch, heads, sequence) comes
        besides, in float32; of documents (heads, tokens). While the module trains, a kind without a backward pass is
        an error.
        """
        if self.dim is None:
            return self._attend(x, k, v, return_lse, keywords)
        if k is not None or v is not None:
            raise CallError("a module with 'dim' makes k and v of x; leave 'dim' out to give q, k and v")
        result = self._attend(*self._projected(x), return_lse, keywords)
        out, lse = result if return_lse else (result, None)
        out = self.o_proj(out.flatten(-2))
        return (out, lse) if return_lse else out

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v, turned."""
        kind = self.kind
        rows = rows_of(kind)
        if check_tensor("x", x).dim() != len(rows) + 1 or x.shape[-1] != self.dim:
            raise CallError(f"x has shape {tuple(x.shape)}; ({', '.join(rows)}, {self.dim}) is needed")
        q = self.q_proj(x).unflatten(-1, (kind.heads.query, kind.head_dim.qk))
        k = self.k_proj(x).unflatten(-1, (kind.heads.kv, kind.head_dim.qk))
        v = self.v_proj(x).unflatten(-1, (kind.heads.kv, kind.head_dim.v))
        return (q, k, v) if self.rotary is None else (*self.rotary(q, k), v)

    def _attend(self, q: Tensor, k: Any, v: Any, return_lse: bool, keywords: dict[str, Any]) -> Any:
        check_shapes(self.kind, q, k, v)
        for name in keywords:
            if name in self._owned:
                raise CallError(f"'{name}' is the module's own, and is not given; set its value instead")
        keywords = keywords | {name: getattr(self, name) for name in self._owned}
        values = k if v is None else v
        result_dtype = torch.bfloat16 if self.kind.quantised else values.dtype
        qkv = [None if x is None else self._turned(autocast(self.kind, x)) for x in (q, k, v)]
        if self.training and records_gradients((*qkv, *keywords.values())):
            reason = why_no_backward(self.kind)
            if reason is not None:
                raise NotGeneratedError(f"layer {self.layer}: kind '{self.kind.name}' {reason}")
        result = self._op(*qkv, return_lse=return_lse, **keywords)
        out, lse = result if return_lse else (result, None)
        out = self._turned(out).to(result_dtype)
        return (out, lse) if return_lse else out

    def _turned(self, x: Tensor) -> Tensor:
        """Heads after the sequence, or before it, as ops have them; packed tensors are the same to both."""
        return x if self.kind.documents else x.transpose(1, 2)

    def extra_repr(self) -> str:
        heads, width = self.kind.heads, "" if self.dim is None else f"dim={self.dim}, "
        return f"{self._spec}, layer={self.layer}, kind={self.kind.name}, {width}heads={heads.query}, kv={heads.kv}"

    def __getstate__(self) -> dict[str, Any]:
        """Without the op, which a copy makes again: operators are of a process."""
        return {name: value for name, value in self.__dict__.items() if name != "_op"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._make_op()


def rows_of(kind: Kind) -> tuple[str, ...]:
    """What the dimensions before the heads are."""
    return ("tokens",) if kind.documents else ("batch", "sequence")


def check_shapes(kind: Kind, q: Any, k: Any, v: Any) -> None:
    """CallError unless q, k and v are (batch, sequence, heads, head_dim) of ``kind``, or (tokens, heads, head_dim) of
    packed documents; lengths are the op's to check."""
    rows = rows_of(kind)
    heads, widths = kind.heads, kind.head_dim
    needed = {"q": (q, heads.query, widths.qk), "k": (k, heads.kv, widths.qk), "v": (v, heads.kv, widths.v)}
    if v is None and kind.latent is not None:
        del needed["v"]
    for name, (tensor, count, width) in needed.items():
        if tensor is None:
            raise CallError(f"{name} is missing; without 'dim' a module takes q, k and v")
        if check_tensor(name, tensor).dim() != len(rows) + 2 or tuple(tensor.shape[len(rows) :]) != (count, width):
            raise CallError(f"{name} has shape {tuple(tensor.shape)}; ({', '.join(rows)}, {count}, {width}) is needed")

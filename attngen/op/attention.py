"""What ``attngen.load`` returns: a model's attention, an op a kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from os import PathLike
from typing import Any

import torch

from attngen.database import Database
from attngen.errors import CallError, NotGeneratedError, did_you_mean
from attngen.op.backward import without_backward
from attngen.op.checks import check_tensor, ordered_keywords
from attngen.op.choose import Chooser, Chosen, target_here
from attngen.op.register import operator, operator_name
from attngen.op.sparse import SparseOp
from attngen.plan import ForwardPlan, plan_forward
from attngen.plan.kernels import selects_keys
from attngen.problem import Problem
from attngen.source import render
from attngen.spec import load_spec
from attngen.spec.model import EXTERNAL, Dtype, Kind, Spec

Database_ = Database | str | None


def load(spec: str | PathLike[str] | Spec, *, dtype: Dtype | None = None, db: Database_ = None) -> Attention:
    """The attention that a spec describes.

    spec: path of a YAML file, or a Spec. dtype: computes in another dtype than the spec's. db: where tuned configs
    are looked up, a SQLAlchemy URL or file; default ATTNGEN_DB, else the user's own. Raises SpecError, with file, line
    and column, for a spec that is wrong.
    """
    if not isinstance(spec, Spec):
        spec = load_spec(spec)
    return Attention(spec if dtype is None else spec.with_dtype(dtype), db)


class Attention:
    """A model's attention: call it with a layer, or use the op of a kind by the kind's name.

    >>> attn = attngen.load("examples/modernbert-base.yaml")
    >>> out = attn(q, k, v, layer=4)
    >>> out, lse = attn.local(q, k, v, return_lse=True)
    """

    def __init__(self, spec: Spec, db: Database_ = None) -> None:
        self.spec = spec
        self.kinds: dict[str, KindOp | SparseOp] = {kind.name: make_op(spec.name, kind, db) for kind in spec.kinds}

    @property
    def layers(self) -> tuple[str, ...]:
        """The kind of each layer."""
        return self.spec.layer_kinds

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor | None = None,
        *,
        layer: int,
        return_lse: bool = False,
        **keywords: Any,
    ) -> Any:
        """Attention of one layer; as ``KindOp.__call__``, or ``SparseOp.__call__`` where its kind selects keys."""
        op: Any = self.op(layer)
        return op(q, k, v, return_lse=return_lse, **keywords)

    def op(self, layer: int) -> KindOp | SparseOp:
        """The op of a layer's kind."""
        count = len(self.layers)
        if isinstance(layer, bool) or not isinstance(layer, int) or not -count <= layer < count:
            raise CallError(f"layer {layer!r}; '{self.spec.name}' has layers 0 to {count - 1}")
        name = self.layers[layer]
        if name == EXTERNAL:
            raise CallError(f"layer {layer} of '{self.spec.name}' is external: it is not attention and has no op")
        return self.kinds[name]

    def __getitem__(self, kind: str) -> KindOp | SparseOp:
        """The op of a kind by name, for names that Python does not take as attributes: ``attn["global"]``."""
        if kind not in self.kinds:
            raise CallError(f"'{self.spec.name}' has no kind '{kind}'; {did_you_mean(kind, self.kinds)}")
        return self.kinds[kind]

    def __getattr__(self, name: str) -> KindOp | SparseOp:
        kinds: Mapping[str, KindOp | SparseOp] = self.__dict__.get("kinds", {})
        if name in kinds:
            return kinds[name]
        raise AttributeError(f"'{self.__dict__['spec'].name}' has no kind '{name}'; {did_you_mean(name, kinds)}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.kinds]

    def __repr__(self) -> str:
        return f"<attngen.Attention {self.spec.name}: {len(self.layers)} layers, kinds {', '.join(self.kinds)}>"


def make_op(spec: str, kind: Kind, db: Database_ = None) -> KindOp | SparseOp:
    """The op of a kind: of one that selects keys by their scores, attention over lists."""
    return SparseOp(spec, kind, db) if selects_keys(kind) else KindOp(spec, kind, db)


class KindOp:
    """The op of one kind of attention layer."""

    def __init__(self, spec: str, kind: Kind, db: Database_ = None) -> None:
        self.kind = kind
        self._spec = spec
        self._db = db
        with suppress(NotGeneratedError):  # said when the op is used
            _ = self.operator  # made now, because torch.compile cannot make it in the middle of a graph

    @cached_property
    def plan(self) -> ForwardPlan:
        """What the kernel must do; NotGeneratedError for kinds whose kernels do not exist yet."""
        return plan_forward(self.kind)

    @cached_property
    def chooser(self) -> Chooser:
        return Chooser(self.plan, self._db)

    @cached_property
    def operator(self) -> Callable:
        """The torch operator: (q, k, v, the kind's keywords in order) -> (out, lse)."""
        return operator(operator_name(self._spec, self.kind, self._db), self.plan, self.chooser)

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, return_lse: bool = False, **keywords: Any
    ) -> Any:
        """softmax(score(q k^T)) v over the keys that the kind lets each query see.

        q: (batch, heads, seq_q, qk dim); k: (batch, kv heads, seq_k, qk dim); v: (batch, kv heads, seq_k, v dim), in
        the spec's dtype, any strides but a unit last one.
        keywords: what the spec leaves to run time (``plan.arguments``), and always ``offsets`` (batch,) int32, the
        position of the first query (default seq_k - seq_q), and ``key_range`` (batch, 2) int32, first and end of the
        valid keys.
        Returns out (batch, heads, seq_q, v dim), of FP8 in bfloat16, and with ``return_lse`` also lse (batch, heads,
        seq_q), float32, natural log, without the sink; a row that sees no key gives 0 and -inf. CPU tensors take the
        float64 reference.
        Raises CallError (a ValueError) for what does not fit the spec.
        """
        extras = ordered_keywords(self.plan, keywords) if keywords or self.plan.arguments else ()
        for name, tensor in (("q", q), ("k", k), ("v", v)):
            check_tensor(name, tensor)
        out, lse = without_backward(self.operator, self.kind.name, q, k, v, *extras)
        return (out, lse) if return_lse else out

    def config(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Chosen:
        """What would run for these tensors, and where that choice comes from."""
        return self.chooser(q, k, v)

    def source(self, kernel: str = "forward", *, batch: int = 1, seq: int = 4096) -> str:
        """The generated code of a kernel, for the config that this machine would run at these sizes."""
        if kernel != "forward":
            raise CallError(f"no kernel '{kernel}'; 'forward' is generated")
        problem = Problem(self.plan.kernel, self.kind.digest(), batch, seq, seq).bucket()
        return render(self.plan, self.chooser.look_up(problem, target_here()).config).text

    def __repr__(self) -> str:
        return f"<attngen op {self._spec}.{self.kind.name}>"

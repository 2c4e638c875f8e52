"""What ``attngen.load`` returns: a model's attention, an op a kind."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch

from attngen.database import Database
from attngen.errors import CallError, did_you_mean, one_of
from attngen.op.blocks import BlockOp
from attngen.op.branches import BranchedOp
from attngen.op.kind import KindOp
from attngen.op.sparse import SparseOp
from attngen.plan.kernels import selects_keys
from attngen.plan.listed import selects_blocks
from attngen.spec import load_spec
from attngen.spec.model import DTYPES, EXTERNAL, Dtype, Kind, Spec

Database_ = Database | str | None
Op = KindOp | SparseOp | BlockOp | BranchedOp


def load(spec: str | PathLike[str] | Spec, *, dtype: Dtype | None = None, db: Database_ = None) -> Attention:
    """The attention that a spec describes.

    spec: path of a YAML file, or a Spec. dtype: computes in another dtype than the spec's. db: where tuned configs
    are looked up, a SQLAlchemy URL or file; default ATTNGEN_DB, else the user's own. Raises SpecError, with file, line
    and column, for a spec that is wrong; CallError for what is no spec, and no dtype's name.
    """
    if dtype is not None and dtype not in DTYPES:
        raise CallError(f"dtype is {dtype!r}; {one_of(DTYPES)} would be right")
    spec = spec_of(spec)
    return Attention(spec if dtype is None else spec.with_dtype(dtype), db)


def spec_of(spec: Any) -> Spec:
    """A spec that is given as such, or as the path of a YAML file."""
    if isinstance(spec, Spec):
        return spec
    if not isinstance(spec, str | PathLike):
        raise CallError(f"a spec is the path of a YAML file, or a Spec; this is a {type(spec).__name__}")
    return load_spec(spec)


class Attention:
    """A model's attention: call it with a layer, or use the op of a kind by the kind's name.

    >>> attn = attngen.load("examples/modernbert-base.yaml")
    >>> out = attn(q, k, v, layer=4)
    >>> out, lse = attn.local(q, k, v, return_lse=True)
    """

    def __init__(self, spec: Spec, db: Database_ = None) -> None:
        self.spec = spec
        self._db = db
        self.kinds: dict[str, Op] = {kind.name: make_op(spec.name, kind, db) for kind in spec.kinds}

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
        """Attention of one layer, as the op of its kind: ``KindOp``, where keys or blocks are selected ``SparseOp`` or
        ``BlockOp``, and of a kind in branches ``BranchedOp``."""
        op: Any = self.op(layer)
        return op(q, k, v, return_lse=return_lse, **keywords)

    def op(self, layer: int) -> Op:
        """The op of a layer's kind."""
        return self.kinds[kind_of_layer(self.spec, layer).name]

    def __getitem__(self, kind: str) -> Op:
        """The op of a kind by name, for names that Python does not take as attributes: ``attn["global"]``."""
        if kind not in self.kinds:
            raise CallError(f"'{self.spec.name}' has no kind '{kind}'; {did_you_mean(kind, self.kinds)}")
        return self.kinds[kind]

    def __getattr__(self, name: str) -> Op:
        kinds: Mapping[str, Op] = self.__dict__.get("kinds", {})
        if name in kinds:
            return kinds[name]
        raise AttributeError(f"'{self.__dict__['spec'].name}' has no kind '{name}'; {did_you_mean(name, kinds)}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies make ops of their own, of the same spec, whose configs come from the same database."""
        return Attention, (self.spec, self._db)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.kinds]

    def __repr__(self) -> str:
        return f"<attngen.Attention {self.spec.name}: {len(self.layers)} layers, kinds {', '.join(self.kinds)}>"


def kind_of_layer(spec: Spec, layer: int) -> Kind:
    """The kind of a layer; CallError for one that the spec does not have, or that is not attention."""
    count = len(spec.layer_kinds)
    if isinstance(layer, bool) or not isinstance(layer, int):
        raise CallError(f"layer is {layer!r}, a {type(layer).__name__}; a Python int is needed")
    if not -count <= layer < count:
        raise CallError(f"layer {layer!r}; '{spec.name}' has layers 0 to {count - 1}")
    name = spec.layer_kinds[layer]
    if name == EXTERNAL:
        raise CallError(f"layer {layer} of '{spec.name}' is external: it is not attention and has no op")
    return spec.kind(name)


def make_op(spec: str, kind: Kind, db: Database_ = None) -> Op:
    """The op of a kind: in branches, over the keys or blocks selected for each query, or by a forward kernel."""
    if kind.branches:
        return BranchedOp(spec, kind, db)
    if selects_keys(kind):
        return SparseOp(spec, kind, db)
    return BlockOp(spec, kind, db) if selects_blocks(kind) else KindOp(spec, kind, db)

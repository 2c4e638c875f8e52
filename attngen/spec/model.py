"""What a spec says, as frozen values: every shorthand normalised, every default filled in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Literal, get_args

from attngen.spec.expression import Expression

Dtype = Literal["float16", "bfloat16", "float32", "float8_e4m3"]
DTYPES: tuple[str, ...] = get_args(Dtype)
YOUNGER_FIELDS = ("compress", "branches")  # unset, they leave the digest of a kind as it was before there were any
EXTERNAL = "external"  # a layer that is not attention (linear attention, convolution): no op is made for it


@dataclass(frozen=True)
class Heads:
    """Query heads, and the key/value heads they share."""

    query: int
    kv: int

    @property
    def group(self) -> int:
        """Query heads that share one KV head."""
        return self.query // self.kv


@dataclass(frozen=True)
class HeadDim:
    """Width of queries and keys, and of values."""

    qk: int
    v: int


@dataclass(frozen=True)
class Window:
    """Keys from ``i - left`` to ``i + right``, both inclusive; None is unbounded."""

    left: int | None
    right: int | None


@dataclass(frozen=True)
class Latent:
    """MLA absorbed into multi-query form: keys ``rank + rope`` wide, values their first ``rank``."""

    rank: int
    rope: int


@dataclass(frozen=True)
class Blocks:
    """Block-sparse attention: a table, given at call time, lists the key blocks of each query block."""

    size: int
    table: Literal["argument"] = "argument"


@dataclass(frozen=True)
class IndexerScale:
    """Granularity and format of an indexer's quantisation scales."""

    block: int
    format: Literal["float32", "ue8m0"] = "float32"


@dataclass(frozen=True)
class Indexer:
    """A lightning indexer: a few cheap heads that score every key (DeepSeek-V3.2)."""

    heads: int
    head_dim: int
    dtype: Literal["float8_e4m3", "bfloat16", "float16"] = "float8_e4m3"
    scale: IndexerScale | None = None
    hadamard: bool = False  # queries and keys are rotated before they are quantised


@dataclass(frozen=True)
class BlockSelect:
    """Selection of whole key blocks: ``top_k`` of them, ``first`` and ``last`` of those a query may see always.

    A block's score is the product of the query with its mean key (MoBA, arXiv:2502.13189), or ``by`` a branch of
    compressed keys, the attention that branch pays to it (NSA, arXiv:2502.11089); one for each query head, or summed
    over the heads that share a KV head.
    """

    size: int
    top_k: int
    first: int = 0
    last: int = 0
    per: Literal["head", "kv_head"] = "head"
    by: str | None = None
    pool: Literal["mean"] = "mean"


@dataclass(frozen=True)
class Compress:
    """Keys that stand for many: key c for those from ``c * stride`` to ``c * stride + size - 1`` (NSA)."""

    size: int
    stride: int


@dataclass(frozen=True)
class Select:
    """Keys chosen for each query: the ``top_k`` of an indexer, or the top blocks.

    ``first`` and ``last`` of the keys that a query may see are always among its ``top_k``.
    """

    top_k: int | None = None
    indexer: Indexer | None = None
    first: int = 0
    last: int = 0
    blocks: BlockSelect | None = None


@dataclass(frozen=True)
class Kind:
    """One kind of attention layer, complete in itself: all a plan needs to know."""

    name: str
    heads: Heads
    head_dim: HeadDim
    dtype: Dtype = "bfloat16"
    scale: float = 1.0  # softmax_scale, resolved
    causal: bool = False
    window: Window | None = None
    chunk: int | None = None
    dilation: int | None = None
    prefix: int | Literal["argument"] | None = None
    always_first: int | None = None
    global_tokens: int | None = None
    documents: bool = False
    blocks: Blocks | None = None
    mask: Expression | None = None
    select: Select | None = None
    latent: Latent | None = None
    softcap: float | None = None
    alibi: bool = False
    score: Expression | None = None
    sink: bool = False
    compress: Compress | None = None
    branches: tuple[Kind, ...] = ()  # whose results are summed, each times its gate

    @property
    def quantised(self) -> bool:
        """Whether q, k and v are 8-bit numbers, which a call's scales multiply."""
        return self.dtype == "float8_e4m3"

    @property
    def torch_dtype(self) -> str:
        """PyTorch's name of the dtype of q, k and v."""
        return f"{self.dtype}fn" if self.quantised else self.dtype

    @property
    def out_dtype(self) -> str:
        """The dtype of out."""
        return "bfloat16" if self.quantised else self.dtype

    @property
    def read_by_symbol(self) -> tuple[tuple[str, int, str], ...]:
        """What ``Expression.read_by_symbol`` has, of mask and score."""
        expressions = (self.mask, self.score)
        return tuple(read for expression in expressions if expression is not None for read in expression.read_by_symbol)

    def with_dtype(self, dtype: Dtype) -> Kind:
        """The same kind, computed in another dtype."""
        return replace(self, dtype=dtype, branches=tuple(branch.with_dtype(dtype) for branch in self.branches))

    def semantics(self) -> dict:
        """Everything that changes what is computed, as plain JSON values; the name does not."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        del values["name"]
        for name in YOUNGER_FIELDS:
            if not values[name]:
                del values[name]
        if self.branches:
            values["branches"] = [{"name": branch.name, **branch.semantics()} for branch in self.branches]
        for name, value in values.items():
            if isinstance(value, Expression):
                values[name] = value.text
            elif is_dataclass(value) and not isinstance(value, type):
                values[name] = asdict(value)
        return values

    def digest(self) -> str:
        """Twelve hex digits that name these semantics: equal for equal kinds, whatever they are called."""
        text = json.dumps(self.semantics(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Spec:
    """One model's attention: its kinds, and which kind each layer is."""

    name: str
    layers: int
    kinds: tuple[Kind, ...]
    layer_kinds: tuple[str, ...]  # one kind name a layer; EXTERNAL where a layer is not attention
    source: str = field(default="<string>", compare=False)  # where it was read from, for messages

    def kind(self, name: str) -> Kind:
        """The kind called ``name``; KeyError when there is none."""
        for kind in self.kinds:
            if kind.name == name:
                return kind
        raise KeyError(name)

    def with_dtype(self, dtype: Dtype) -> Spec:
        """The same spec, computed in another dtype."""
        return replace(self, kinds=tuple(kind.with_dtype(dtype) for kind in self.kinds))

"""What the kernel that quantises an indexer's queries and keys, or a cache's rows, must do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attngen.errors import NotGeneratedError
from attngen.plan.indexer import IndexDtype, indexer_of
from attngen.problem import next_power_of_two
from attngen.spec.model import Kind

LARGEST = 448.0  # of e4m3
LEAST_AMAX = 1e-4  # a group of smaller numbers is scaled as if this were the largest
PAGE_KEYS = 64  # keys of a page of an index cache
LATENT_RANK, LATENT_ROPE, LATENT_GROUP = 512, 64, 128  # columns of a row of FlashMLA's cache, and those of one scale
LATENT_BYTES = LATENT_RANK + LATENT_RANK // LATENT_GROUP * 4 + LATENT_ROPE * 2

Format = Literal["float32", "ue8m0"]
SourceDtype = Literal["bfloat16", "float16", "float32"]
Layout = Literal["rows", "pages", "latent"]


@dataclass(frozen=True)
class QuantisePlan:
    """Rows as e4m3 with a scale each: the largest magnitude / 448, rounded up to a power of two where the format is
    ue8m0; ``rotate`` multiplies them by a Hadamard matrix first.

    ``layout``: contiguous rows and scales; DeepGEMM's pages of 64 keys and their scales; or FlashMLA's rows of 656
    bytes: 512 columns in four groups, their scales, and 64 columns as they were.
    """

    kind: Kind
    head_dim: int
    dtype: IndexDtype
    source: SourceDtype = "bfloat16"
    format: Format = "float32"
    rotate: bool = False
    layout: Layout = "rows"
    kernel: Literal["quantise"] = "quantise"

    @property
    def groups(self) -> int:
        """Of a row, with a scale each."""
        return self.head_dim // LATENT_GROUP if self.layout == "latent" else 1

    @property
    def width(self) -> int:
        """Columns of a group as they are held."""
        return next_power_of_two(self.head_dim // self.groups)

    @property
    def identity(self) -> bool:
        """Whether nothing is quantised: indexers in 16 bits take numbers as they are."""
        return self.dtype != "float8_e4m3"


def plan_quantise(
    kind: Kind, *, dtype: IndexDtype | None = None, source: SourceDtype = "bfloat16", rotate: bool = False
) -> QuantisePlan:
    """How ``kind``'s indexer has its queries and keys; ``dtype`` where it is not the spec's."""
    indexer = indexer_of(kind)
    form: Format = indexer.scale.format if indexer.scale else "float32"
    if rotate and next_power_of_two(indexer.head_dim) != indexer.head_dim:
        raise NotGeneratedError(
            f"kind '{kind.name}': its indexer is {indexer.head_dim} wide; rotations of a power of two are generated"
        )
    return QuantisePlan(kind, indexer.head_dim, dtype or indexer.dtype, source, form, rotate)


def plan_pages(kind: Kind, *, source: SourceDtype = "bfloat16", rotate: bool = False) -> QuantisePlan:
    """How a paged cache has the keys of ``kind``'s indexer."""
    plan = plan_quantise(kind, dtype="float8_e4m3", source=source, rotate=rotate)
    return QuantisePlan(kind, plan.head_dim, plan.dtype, source, plan.format, rotate, layout="pages")


def plan_latent(kind: Kind, *, format: Format = "float32") -> QuantisePlan:
    """How a cache has the latent keys of ``kind``; they come in bfloat16."""
    latent = kind.latent
    if latent is None or (latent.rank, latent.rope) != (LATENT_RANK, LATENT_ROPE):
        raise NotGeneratedError(
            f"kind '{kind.name}': the cache in FP8 has latent keys of rank {LATENT_RANK} and {LATENT_ROPE} columns of "
            f"rope; this kind has {'none' if latent is None else f'{latent.rank} and {latent.rope}'}"
        )
    return QuantisePlan(kind, LATENT_RANK, "float8_e4m3", "bfloat16", format, layout="latent")

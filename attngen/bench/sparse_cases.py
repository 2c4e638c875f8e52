"""What is measured of DeepSeek's sparse attention: its parts, at the sizes of a long prefill's last queries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from attngen.problem import Problem
from attngen.spec import Kind, parse_spec

INDEXER, INDEXER_SELECT, GATHERED = "indexer", "indexer-select", "gathered"  # suites


@dataclass(frozen=True)
class SparseCase:
    """One suite's part of a kind's work: the last ``seq_q`` queries of one sequence of ``seq_k`` keys."""

    suite: str
    name: str
    spec: str
    kind: Kind
    seq_q: int
    seq_k: int
    batch: int = 1

    @property
    def sizes(self) -> str:
        return f"{self.seq_q} queries, {self.seq_k} keys"

    @property
    def problem(self) -> Problem:
        """Of the kernel that the suite is named for, or begins with."""
        kernel = "gathered" if self.suite == GATHERED else "indexer"
        return Problem(kernel, self.kind.digest(), self.batch, self.seq_q, self.seq_k)

    def matches(self, part: str) -> bool:
        return part.lower() in f"{self.suite} {self.name}".lower()


@dataclass(frozen=True)
class SparseSuite:
    """Cases that stand in one table: kinds of DeepSeek-V3.2 that differ in heads, at queries x keys."""

    name: str
    title: str
    measure: Literal["tflops", "ms"]
    sizes: tuple[tuple[int, int, int], ...]  # query heads, queries, keys

    @cached_property
    def cases(self) -> tuple[SparseCase, ...]:
        cases = []
        for heads, seq_q, seq_k in self.sizes:
            spec = parse_spec(_SPEC.format(heads=heads))
            label = f"{heads} heads, " if self.name == GATHERED else ""
            cases.append(SparseCase(self.name, f"{label}{seq_q} x {seq_k}", spec.name, spec.kinds[0], seq_q, seq_k))
        return tuple(cases)


_SPEC = (  # the kind of examples/deepseek-v3.2.yaml: with 128 heads its digest is the same, and so are its tunings
    "{{name: deepseek-v3.2, heads: {heads}, latent: {{rank: 512, rope: 64}}, scale: 0.1352337788608801, causal: true, "
    "select: {{top_k: 2048, indexer: {{heads: 64, head_dim: 128, dtype: float8_e4m3, scale: {{block: 128, format: "
    "ue8m0}}}}}}}}"
)
_PREFILL = ((128, 2048, 8192), (128, 4096, 32768), (128, 4096, 65536), (128, 4096, 131072))
_LISTS = ((128, 4096, 8192), (128, 4096, 32768), (128, 4096, 131072), *((n, 4096, 32768) for n in (64, 32, 16)))
SPARSE = (
    SparseSuite(INDEXER, "Indexer logits (64 heads of 128, FP8), TFLOP/s", "tflops", _PREFILL),
    SparseSuite(INDEXER_SELECT, "Indexer and top 2048, ms", "ms", _PREFILL),
    SparseSuite(GATHERED, "Latent attention over the top 2048, TFLOP/s", "tflops", _LISTS),
)

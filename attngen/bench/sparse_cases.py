"""What is measured of sparse attention: DeepSeek's parts, at the sizes of a long prefill's last queries, and whole
prefills of kinds that select blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from attngen.problem import Problem
from attngen.spec import Kind, parse_spec

INDEXER, INDEXER_SELECT, GATHERED, BLOCKS = "indexer", "indexer-select", "gathered", "blocks"  # suites


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
        kernel = {GATHERED: "gathered", BLOCKS: "block_select"}.get(self.suite, "indexer")
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


@dataclass(frozen=True)
class BlockSuite:
    """Cases that stand in one table: kinds that select blocks, at the lengths of whole prefills."""

    name: str
    title: str
    measure: Literal["tflops", "ms"]
    kinds: tuple[tuple[str, str, tuple[int, ...]], ...]  # name, spec, lengths

    @cached_property
    def cases(self) -> tuple[SparseCase, ...]:
        cases = []
        for label, text, lengths in self.kinds:
            spec = parse_spec(text)
            for seq in lengths:
                cases.append(SparseCase(self.name, f"{label} S{seq}", spec.name, spec.kinds[0], seq, seq))
        return tuple(cases)


_SPEC = (  # the kind of examples/deepseek-v3.2.yaml: with 128 heads its digest is the same, and so are its tunings
    "{{name: deepseek-v3.2, heads: {heads}, latent: {{rank: 512, rope: 64}}, scale: 0.1352337788608801, causal: true, "
    "select: {{top_k: 2048, indexer: {{heads: 64, head_dim: 128, dtype: float8_e4m3, scale: {{block: 128, format: "
    "ue8m0}}}}}}}}"
)
_PREFILL = ((128, 2048, 8192), (128, 4096, 32768), (128, 4096, 65536), (128, 4096, 131072))
_LISTS = ((128, 4096, 8192), (128, 4096, 32768), (128, 4096, 131072), *((n, 4096, 32768) for n in (64, 32, 16)))
_MOBA = (
    "{{name: moba-llama-3.1-8b, heads: {{query: 32, kv: 8}}, head_dim: 128, causal: true, select: {{blocks: "
    "{{size: {size}, top_k: {top_k}, last: 1}}}}}}"
)
SPARSE = (
    SparseSuite(INDEXER, "Indexer logits (64 heads of 128, FP8), TFLOP/s", "tflops", _PREFILL),
    SparseSuite(INDEXER_SELECT, "Indexer and top 2048, ms", "ms", _PREFILL),
    SparseSuite(GATHERED, "Latent attention over the top 2048, TFLOP/s", "tflops", _LISTS),
    BlockSuite(
        BLOCKS,
        "Prefill over selected blocks, ms",
        "ms",
        (
            # The kinds of the examples, and MoBA with blocks of a shorter context.
            ("MoBA, 8 blocks of 512", _MOBA.format(size=512, top_k=8), (32768, 131072)),
            ("MoBA, 12 blocks of 4096", _MOBA.format(size=4096, top_k=12), (131072,)),
            (
                "NSA",
                "{name: nsa-27b, heads: {query: 64, kv: 4}, head_dim: {qk: 192, v: 128}, causal: true, branches: "
                "{compressed: {compress: {size: 32, stride: 16}}, selected: {select: {blocks: {size: 64, top_k: 16, "
                "first: 1, last: 2, per: kv_head, by: compressed}}}, window: {window: {total: 512}}}}",
                (8192, 65536),
            ),
        ),
    ),
)

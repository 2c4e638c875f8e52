"""What is measured: dense attention and the windows of real models, forward and backward, at the sizes that peers
publish."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from attngen.bench.lengths import log_uniform
from attngen.bench.sparse_cases import SPARSE, BlockSuite, SparseCase, SparseSuite
from attngen.errors import UsageError
from attngen.spec import Kind, Spec, parse_spec


@dataclass(frozen=True)
class BenchCase:
    """One kind at one set of sizes."""

    suite: str
    name: str
    spec: str  # name of the spec it belongs to
    kind: Kind
    batch: int
    seq: int
    backward: bool = False  # its gradients, from the results of a forward pass
    lengths: tuple[int, ...] = ()  # of packed documents, which make up ``seq`` tokens

    @property
    def sizes(self) -> str:
        if self.lengths:
            shortest, longest = min(self.lengths), max(self.lengths)
            return f"{len(self.lengths)} documents of {shortest} to {longest} tokens, {self.seq} in all"
        return f"batch {self.batch}, {self.seq} x {self.seq}"

    def matches(self, part: str) -> bool:
        return part.lower() in f"{self.suite} {self.name}".lower()


@dataclass(frozen=True)
class Suite:
    """Cases that stand in one table: every kind of each spec, at each (batch, length) beside it."""

    name: str
    title: str
    measure: Literal["tflops", "ms"]  # what its table tells
    specs: tuple[tuple[str, str, tuple[tuple[int, int], ...]], ...]  # label, YAML, sizes
    backward: bool = False

    @cached_property
    def cases(self) -> tuple[BenchCase, ...]:
        cases = []
        for label, text, sizes in self.specs:
            spec = parse_spec(text)
            for kind in spec.kinds:
                words = label if len(spec.kinds) == 1 else f"{label} {kind.name}"
                for batch, seq in sizes:
                    name = f"{words} S{seq}"
                    cases.append(BenchCase(self.name, name, spec.name, kind, batch, seq, self.backward))
        return tuple(cases)


_DENSE_SIZES = ((8, 2048), (2, 8192), (1, 16384))  # 16384 tokens each
_D64 = "{name: dense-d64, heads: 32, head_dim: 64, kinds: {full: {}, causal: {causal: true}}, pattern: FC}"
_D128 = "{name: dense-d128, heads: 16, head_dim: 128, kinds: {full: {}, causal: {causal: true}}, pattern: FC}"
_D256 = "{name: wide-d256, heads: {query: 8, kv: 4}, head_dim: 256, causal: true}"
DENSE = Suite(
    "dense-forward",
    "Dense forward, TFLOP/s",
    "tflops",
    (("D64", _D64, _DENSE_SIZES), ("D128", _D128, _DENSE_SIZES)),
)
WIDE = Suite(
    "wide-forward",
    "Wide heads forward, TFLOP/s",
    "tflops",
    (
        ("D256 causal", _D256, ((2, 8192),)),
        (
            "D192/128 causal",
            "{name: wide-d192-128, heads: 16, head_dim: {qk: 192, v: 128}, causal: true}",
            ((2, 8192),),
        ),
    ),
)
WINDOW = Suite(
    "window-forward",
    "Windows forward, ms",
    "ms",
    # Each the local kind of the model's example: the digests are the same, and so are the tunings.
    (
        (
            "ModernBERT-base",
            "{name: modernbert-base, heads: 12, head_dim: 64, window: {half: 64}}",
            ((8, 8192),),
        ),
        (
            "GPT-OSS",
            "{name: gpt-oss-20b, heads: {query: 64, kv: 8}, head_dim: 64, causal: true, sink: learned, "
            "window: {total: 128}}",
            ((2, 16384),),
        ),
        (
            "Gemma-3",
            "{name: gemma-3-4b, heads: {query: 8, kv: 4}, head_dim: 256, causal: true, window: {total: 1024}}",
            ((2, 32768),),
        ),
        (
            "Mistral",
            "{name: mistral-7b, heads: {query: 32, kv: 8}, head_dim: 128, causal: true, window: {total: 4096}}",
            ((1, 32768),),
        ),
    ),
)
FP8 = Suite(
    "fp8-forward",
    "FP8 forward, beside bfloat16, TFLOP/s",
    "tflops",
    (
        (
            "D128 causal",
            "{name: fp8-d128, heads: 16, head_dim: 128, causal: true, "
            "kinds: {fp8: {dtype: float8_e4m3}, bf16: {}}, pattern: [fp8, bf16]}",
            ((1, 16384),),
        ),
    ),
)
DENSE_BACKWARD = Suite(
    "dense-backward",
    "Dense backward, TFLOP/s",
    "tflops",
    (
        ("D64", _D64, ((2, 8192),)),
        ("D128", _D128, ((2, 8192),)),
        (
            "D128 causal, 32 over 8 heads",
            "{name: grouped-d128, heads: {query: 32, kv: 8}, head_dim: 128, causal: true}",
            ((1, 8192),),
        ),
        ("D256 causal", _D256, ((2, 8192),)),
    ),
    backward=True,
)
_PACKED_D64 = "{name: packed-d64, heads: 32, head_dim: 64, causal: true}"
_PACKED_D128 = "{name: packed-d128, heads: {query: 32, kv: 8}, head_dim: 128, causal: true}"
PACKED_TOKENS, SHORTEST = 65536, 16
LENGTHS = log_uniform(PACKED_TOKENS, SHORTEST, 16384)


@dataclass(frozen=True)
class PackedSuite:
    """Cases that stand in one table: documents of very uneven lengths, and as many tokens in sequences of one length;
    what is compared is the throughput of visible pairs."""

    name: str
    title: str
    measure: Literal["tflops", "ms"] = "tflops"
    backward: bool = False

    @cached_property
    def cases(self) -> tuple[BenchCase, ...]:
        cases = []
        for label, text in (("D64 causal", _PACKED_D64), ("D128 causal, 32 over 8 heads", _PACKED_D128)):
            spec = parse_spec(text)
            equal = BenchCase(self.name, f"{label}, 16 x 4096", spec.name, spec.kinds[0], 16, 4096, self.backward)
            packed = replace(spec.kinds[0], documents=True)
            name = f"{label}, {len(LENGTHS)} documents"
            cases.append(replace(equal, name=name, kind=packed, batch=1, seq=PACKED_TOKENS, lengths=LENGTHS))
            cases.append(equal)
        return tuple(cases)


PACKED_FORWARD = PackedSuite("packed-forward", "Packed documents forward, TFLOP/s of visible pairs")
PACKED_BACKWARD = PackedSuite("packed-backward", "Packed documents backward, TFLOP/s of visible pairs", backward=True)
WINDOW_BACKWARD = replace(WINDOW, name="window-backward", title="Windows backward, ms", backward=True)
AnySuite = Suite | PackedSuite | SparseSuite | BlockSuite
AnyCase = BenchCase | SparseCase
SUITES: dict[str, tuple[AnySuite, ...]] = {
    "dense": (DENSE,),
    "wide": (WIDE,),
    "window": (WINDOW,),
    "fp8": (FP8,),
    "backward": (DENSE_BACKWARD, WINDOW_BACKWARD),
    "packed": (PACKED_FORWARD, PACKED_BACKWARD),
    "sparse": SPARSE,
}
SUITES["all"] = tuple(suite for suites in SUITES.values() for suite in suites)


def suite_cases(name: str, seqs: tuple[int, ...] = (), batch: int | None = None) -> list[AnyCase]:
    """The cases of a suite, or of ``all``; ``seqs`` and ``batch`` instead of their own sizes, but for sparse and packed
    ones."""
    cases = [case for suite in SUITES[name] for case in suite.cases]
    if not seqs and batch is None:
        return cases
    packed = {suite.name for suite in SUITES["packed"]}
    resized: dict[tuple[str, str], AnyCase] = {}
    for case in cases:
        if isinstance(case, SparseCase) or case.suite in packed:
            resized[case.suite, case.name] = case
            continue
        for seq in seqs or (case.seq,):
            size = batch or max(1, case.batch * case.seq // seq)
            name = f"{case.name.rsplit(' S', 1)[0]} S{seq}"
            resized[case.suite, name] = replace(case, name=name, batch=size, seq=seq)
    return list(resized.values())


def spec_cases(
    spec: Spec, kinds: Iterable[Kind], sizes: Iterable[tuple[int, int]], backward: bool = False
) -> list[BenchCase]:
    """Every kind of a spec at each (batch, length); of packed documents as many tokens, of lengths up to that one."""
    sizes, word = list(sizes), " backward" if backward else ""
    cases = []
    for kind in kinds:
        for batch, seq in sizes:
            case = BenchCase(spec.name, f"{kind.name}{word} B{batch} S{seq}", spec.name, kind, batch, seq, backward)
            if kind.documents:
                lengths = log_uniform(batch * seq, min(SHORTEST, seq), seq)
                case = replace(case, batch=1, seq=batch * seq, lengths=lengths)
            cases.append(case)
    return cases


def matching(cases: Sequence[AnyCase], parts: Sequence[str]) -> list[AnyCase]:
    """Those whose suite and name have one of ``parts`` in them; all where there are no parts."""
    if not parts:
        return list(cases)
    for part in parts:
        if not any(case.matches(part) for case in cases):
            raise UsageError(f"no case matches '{part}'; there are {', '.join(case.name for case in cases)}")
    return [case for case in cases if any(case.matches(part) for part in parts)]

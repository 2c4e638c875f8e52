"""What is measured: dense attention and the windows of real models, at the sizes that peers publish."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attngen.spec import Kind, Spec, parse_spec

DENSE, WINDOW = "dense-forward", "window-forward"
SUITES = {"dense": (DENSE,), "window": (WINDOW,), "all": (DENSE, WINDOW)}
DENSE_SEQS = (2048, 8192, 16384)
TOKENS = 16384  # in every dense case

_DENSE = {
    "D64": "{name: dense-d64, heads: 32, head_dim: 64, kinds: {full: {}, causal: {causal: true}}, pattern: FC}",
    "D128": "{name: dense-d128, heads: 16, head_dim: 128, kinds: {full: {}, causal: {causal: true}}, pattern: FC}",
}
# Each the local kind of the model's example: the digests are the same, and so are the tunings.
_WINDOWS = (
    ("ModernBERT-base", 8, 8192, "{name: modernbert-base, heads: 12, head_dim: 64, window: {half: 64}}"),
    (
        "GPT-OSS",
        2,
        16384,
        "{name: gpt-oss-20b, heads: {query: 64, kv: 8}, head_dim: 64, causal: true, sink: learned, "
        "window: {total: 128}}",
    ),
    (
        "Gemma-3",
        2,
        32768,
        "{name: gemma-3-4b, heads: {query: 8, kv: 4}, head_dim: 256, causal: true, window: {total: 1024}}",
    ),
    (
        "Mistral",
        1,
        32768,
        "{name: mistral-7b, heads: {query: 32, kv: 8}, head_dim: 128, causal: true, window: {total: 4096}}",
    ),
)


@dataclass(frozen=True)
class BenchCase:
    """One kind at one set of sizes."""

    suite: str
    name: str
    spec: str  # name of the spec it belongs to
    kind: Kind
    batch: int
    seq: int


def suite_cases(suite: str, seqs: tuple[int, ...] = (), batch: int | None = None) -> list[BenchCase]:
    """The cases of ``dense``, ``window`` or ``all``; ``seqs`` and ``batch`` instead of their own sizes."""
    cases = [case for case in (*_dense(), *_windows()) if case.suite in SUITES[suite]]
    if not seqs and batch is None:
        return cases
    resized = {}
    for case in cases:
        for seq in seqs or (case.seq,):
            size = batch or max(1, case.batch * case.seq // seq)
            name = f"{case.name.rsplit(' S', 1)[0]} S{seq}"
            resized[name] = BenchCase(case.suite, name, case.spec, case.kind, size, seq)
    return list(resized.values())


def spec_cases(spec: Spec, kinds: Iterable[Kind], sizes: Iterable[tuple[int, int]]) -> list[BenchCase]:
    """Every kind of a spec at each (batch, length)."""
    sizes = list(sizes)
    return [
        BenchCase(spec.name, f"{kind.name} B{batch} S{seq}", spec.name, kind, batch, seq)
        for kind in kinds
        for batch, seq in sizes
    ]


def _dense() -> list[BenchCase]:
    specs = {width: parse_spec(text) for width, text in _DENSE.items()}
    return [
        BenchCase(DENSE, f"{width} {kind.name} S{seq}", spec.name, kind, TOKENS // seq, seq)
        for width, spec in specs.items()
        for kind in spec.kinds
        for seq in DENSE_SEQS
    ]


def _windows() -> list[BenchCase]:
    cases = []
    for model, batch, seq, text in _WINDOWS:
        spec = parse_spec(text)
        cases.append(BenchCase(WINDOW, f"{model} S{seq}", spec.name, spec.kinds[0], batch, seq))
    return cases

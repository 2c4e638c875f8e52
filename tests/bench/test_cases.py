"""The suites are the published cases, and use the tunings of the examples."""

from attngen.bench.cases import spec_cases, suite_cases
from attngen.resources import resource_dir
from attngen.spec import load_spec, parse_spec

EXAMPLES = resource_dir("templates").parent / "examples"


def test_dense_cases():
    cases = suite_cases("dense")
    assert len(cases) == 12
    assert {(c.kind.head_dim.qk, c.kind.heads.query) for c in cases} == {(64, 32), (128, 16)}
    assert {c.batch * c.seq for c in cases} == {16384}
    assert [c.name for c in cases[:3]] == ["D64 full S2048", "D64 full S8192", "D64 full S16384"]
    assert sum(c.kind.causal for c in cases) == 6


def test_windows_are_the_kinds_of_the_examples():
    """Equal digests: what was tuned for an example is what the benchmark runs."""
    kinds = {
        "ModernBERT-base": "modernbert-base",
        "GPT-OSS": "gpt-oss-20b",
        "Gemma-3": "gemma-3-4b",
        "Mistral": "mistral-7b",
    }
    cases = suite_cases("window")
    assert [(c.batch, c.seq) for c in cases] == [(8, 8192), (2, 16384), (2, 32768), (1, 32768)]
    for case in cases:
        spec = load_spec(EXAMPLES / f"{kinds[case.name.rsplit(' ', 1)[0]]}.yaml")
        assert case.spec == spec.name
        assert case.kind.digest() in {kind.digest() for kind in spec.kinds}


def test_other_sizes():
    cases = suite_cases("dense", seqs=(4096,))
    assert len(cases) == 4 and {(c.batch, c.seq) for c in cases} == {(4, 4096)}
    assert {c.batch for c in suite_cases("window", batch=1)} == {1}
    assert len(suite_cases("all")) == 16


def test_the_kinds_of_a_spec():
    spec = parse_spec("{name: x, heads: 2, head_dim: 64, kinds: {a: {}, b: {causal: true}}, pattern: AB}")
    cases = spec_cases(spec, spec.kinds, [(2, 128), (1, 256)])
    assert [(c.suite, c.name) for c in cases][:2] == [("x", "a B2 S128"), ("x", "a B1 S256")] and len(cases) == 4

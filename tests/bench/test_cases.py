"""The suites are the published cases, and use the tunings of the examples."""

from dataclasses import replace

import pytest

from attngen.bench.cases import matching, spec_cases, suite_cases
from attngen.errors import UsageError
from attngen.plan import plan_forward
from attngen.plan.backward import plan_backward
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
    assert len(suite_cases("all", seqs=(4096,))) == 4 + 2 + 4 + 2 + 6 + 4 + 8 + 19
    assert all(c.backward for c in suite_cases("backward", batch=1))


def test_packed_documents():
    """Of very uneven lengths, beside as many tokens in sequences of one."""
    for suite in ("packed-forward", "packed-backward"):
        cases = [case for case in suite_cases("packed") if case.suite == suite]
        assert [case.batch * case.seq for case in cases] == [65536] * 4
        assert [bool(case.lengths) for case in cases] == [case.kind.documents for case in cases] == [True, False] * 2
        assert all(case.backward == (suite == "packed-backward") for case in cases)
    lengths = cases[0].lengths
    assert sum(lengths) == 65536 and min(lengths) >= 16 and 8 * min(lengths) < max(lengths) <= 16384
    assert f"{len(lengths)} documents of {min(lengths)} to {max(lengths)} tokens" in cases[0].sizes
    assert suite_cases("packed", seqs=(4096,)) == suite_cases("packed")


def test_blocks_are_of_the_examples():
    cases = [case for case in suite_cases("sparse") if case.suite == "blocks"]
    examples = {load_spec(EXAMPLES / f"{name}.yaml").kinds[0].digest() for name in ("moba-llama-3.1-8b", "nsa-27b")}
    assert {case.kind.digest() for case in cases} > examples  # and so are their tunings
    assert all(case.seq_q == case.seq_k for case in cases)


def test_wide_heads():
    cases = suite_cases("wide")
    assert [(c.name, c.batch, c.kind.heads.query, c.kind.heads.kv) for c in cases] == [
        ("D256 causal S8192", 2, 8, 4),
        ("D192/128 causal S8192", 2, 16, 16),
    ]
    assert [(c.kind.head_dim.qk, c.kind.head_dim.v) for c in cases] == [(256, 256), (192, 128)]
    assert all(c.kind.causal and plan_forward(c.kind) for c in cases)


def test_backward_cases():
    """Those that peers publish, of kinds whose forward pass is measured too, but for one; windows are the same."""
    cases = suite_cases("backward")
    assert [(c.name, c.batch, c.kind.heads.query, c.kind.heads.kv) for c in cases[:6]] == [
        ("D64 full S8192", 2, 32, 32),
        ("D64 causal S8192", 2, 32, 32),
        ("D128 full S8192", 2, 16, 16),
        ("D128 causal S8192", 2, 16, 16),
        ("D128 causal, 32 over 8 heads S8192", 1, 32, 8),
        ("D256 causal S8192", 2, 8, 4),
    ]
    assert [(c.name, c.kind, c.batch, c.seq) for c in cases[6:]] == [
        (c.name, c.kind, c.batch, c.seq) for c in suite_cases("window")
    ]
    assert all(c.backward and plan_backward(c.kind) for c in cases)


def test_fp8_stands_beside_bfloat16_of_the_same_shape():
    eight, sixteen = suite_cases("fp8")
    assert [(c.name, c.batch, c.seq, c.kind.dtype) for c in (eight, sixteen)] == [
        ("D128 causal fp8 S16384", 1, 16384, "float8_e4m3"),
        ("D128 causal bf16 S16384", 1, 16384, "bfloat16"),
    ]
    assert sixteen.kind.digest() in {c.kind.digest() for c in suite_cases("dense")}  # and so are its tunings
    assert replace(eight.kind, dtype="bfloat16").digest() == sixteen.kind.digest()


def test_all_is_every_suite():
    counts = {"dense-forward": 12, "wide-forward": 2, "window-forward": 4, "fp8-forward": 2}
    counts |= {"dense-backward": 6, "window-backward": 4, "packed-forward": 4, "packed-backward": 4}
    counts |= {"indexer": 4, "indexer-select": 4, "gathered": 6, "blocks": 5}
    assert [c.suite for c in suite_cases("all")] == [suite for suite, count in counts.items() for _ in range(count)]
    names = [(c.suite, c.name) for c in suite_cases("all")]
    assert len(set(names)) == len(names)


def test_cases_by_part_of_their_names():
    cases = suite_cases("all")
    assert [c.name for c in matching(cases, ["d256", "gpt"])] == ["D256 causal S8192", "GPT-OSS S16384"] * 2
    assert matching(cases, ["window-forward"]) == suite_cases("window") and matching(cases, []) == cases
    with pytest.raises(UsageError, match="no case matches 'D96'; there are D64 full S2048, "):
        matching(cases, ["D128", "D96"])


def test_the_kinds_of_a_spec():
    spec = parse_spec("{name: x, heads: 2, head_dim: 64, kinds: {a: {}, b: {causal: true}}, pattern: AB}")
    cases = spec_cases(spec, spec.kinds, [(2, 128), (1, 256)])
    assert [(c.suite, c.name) for c in cases][:2] == [("x", "a B2 S128"), ("x", "a B1 S256")] and len(cases) == 4
    backward = spec_cases(spec, spec.kinds, [(2, 128)], backward=True)
    assert [(c.name, c.backward) for c in backward] == [("a backward B2 S128", True), ("b backward B2 S128", True)]

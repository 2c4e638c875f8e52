"""Writing a spec: what is written reads back equal, and looks as a person would have written it."""

import textwrap

import pytest
from hypothesis import HealthCheck, given, settings

from attngen.spec import dump_spec, parse_spec
from tests.spec.strategies import specs


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(specs())
def test_what_is_written_reads_back_equal(spec):
    assert parse_spec(dump_spec(spec)) == spec


WRITTEN = [
    """
    name: modernbert-base
    heads: 12
    head_dim: 64
    layers: 22
    kinds:
      global: {}
      local:  {window: {half: 64}}
    pattern: {global: every 3, otherwise: local}
    """,
    """
    name: gpt-oss-20b
    heads: {query: 64, kv: 8}
    head_dim: 64
    layers: 24
    causal: true
    sink: learned
    kinds:
      local:  {window: {total: 128}}
      global: {}
    pattern: [local, global]
    """,
    """
    name: deepseek-v3.2
    heads: 128
    latent: {rank: 512, rope: 64}
    layers: 61
    scale: 0.1352337788608801
    causal: true
    kinds:
      sparse:
        select:
          top_k: 2048
          indexer: {heads: 64, head_dim: 128, dtype: float8_e4m3, scale: {block: 128, format: ue8m0}}
    """,
    """
    name: nsa
    heads: {query: 64, kv: 4}
    head_dim: {qk: 192, v: 128}
    layers: 30
    causal: true
    kinds:
      sparse:
        branches:
          compressed: {compress: {size: 32, stride: 16}}
          selected:
            select: {blocks: {size: 64, top_k: 16, first: 1, last: 2, per: kv_head, by: compressed}}
          window: {window: {total: 512}, sink: learned}
    """,
    """
    name: one-kind
    heads: 4
    head_dim: {qk: 192, v: 128}
    dtype: float16
    layers: 1
    causal: true
    chunk: 1
    always: {first: 4}
    mask: "i - j < reach"
    softcap: 50
    score: "s + bias[h, i - j + 128]"
    """,
    """
    name: own-widths
    heads: 8
    head_dim: 64
    layers: 12
    kinds:
      wide:   {head_dim: 128, window: {left: null, right: 0}}
      narrow: {causal: true}
      plain:  {}
    pattern: [wide, narrow, plain, external]
    """,
]


@pytest.mark.parametrize("text", WRITTEN, ids=lambda text: text.split()[1])
def test_shared_fields_are_hoisted_and_shorthands_used(text):
    text = textwrap.dedent(text).lstrip()
    assert dump_spec(parse_spec(text)) == text


def test_comments_are_one_line_each():
    spec = parse_spec("heads: 1\nhead_dim: 16")
    text = dump_spec(spec, ["a model", "two\nlines\tof it"])
    assert text.startswith("# a model\n# two lines of it\nname:")
    assert parse_spec(text) == spec


def test_a_long_pattern_is_folded():
    layers = ["sliding_attention"] * 9 + ["full_attention", "sliding_attention", "external"]
    spec = parse_spec(
        "heads: 1\nhead_dim: 16\nkinds: {sliding_attention: {}, full_attention: {}}\npattern: ["
        + ", ".join(layers)
        + "]"
    )
    text = dump_spec(spec)
    assert max(map(len, text.splitlines())) <= 100
    assert parse_spec(text) == spec

"""Reading a spec: every field, what its shorthands become, what a kind inherits and what it turns off."""

import pytest

from attngen.errors import SpecError, UsageError
from attngen.spec import load_spec, parse_spec
from attngen.spec.model import (
    Blocks,
    BlockSelect,
    HeadDim,
    Heads,
    Indexer,
    IndexerScale,
    Latent,
    Select,
    Window,
)


def kind(fields: str):
    """The one kind of a small spec with ``fields`` added."""
    return parse_spec(f"heads: 4\nhead_dim: 64\n{fields}").kind("attention")


def test_the_smallest_spec():
    spec = parse_spec("heads: 4\nhead_dim: 64", "models/tiny one.yaml")
    assert (spec.name, spec.layers, spec.layer_kinds) == ("tiny-one", 1, ("attention",))
    (only,) = spec.kinds
    assert (only.heads, only.head_dim, only.dtype, only.scale) == (Heads(4, 4), HeadDim(64, 64), "bfloat16", 0.125)
    assert not (only.causal or only.window or only.sink or only.mask)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("window: {total: 128}", "window", Window(127, 0)),
        ("window: {half: 64}", "window", Window(64, 64)),
        ("window: {half: 0}", "window", Window(0, 0)),
        ("window: {left: 3, right: 5}", "window", Window(3, 5)),
        ("window: {left: null, right: 5}", "window", Window(None, 5)),
        ("window: {left: 3}", "window", Window(3, None)),
        ("window: {left: null, right: ~}", "window", None),
        ("window: null", "window", None),
        ("causal: true\nwindow: {half: 64}", "window", Window(64, 0)),
        ("causal: true\nwindow: {left: 64}", "window", Window(64, 0)),
        ("causal: true\nwindow: {right: 9}", "window", None),
        ("chunk: 8", "chunk", 8),
        ("chunk: null", "chunk", None),
        ("dilation: 3", "dilation", 3),
        ("dilation: 1", "dilation", None),
        ("prefix: 7", "prefix", 7),
        ("prefix: argument", "prefix", "argument"),
        ("prefix: 0", "prefix", None),
        ("always: {first: 4}", "always_first", 4),
        ("always: null", "always_first", None),
        ("global_tokens: 2", "global_tokens", 2),
        ("global_tokens: 0", "global_tokens", None),
        ("documents: true", "documents", True),
        ("blocks: {size: 64, table: argument}", "blocks", Blocks(64)),
        ("select: {top_k: 16}", "select", Select(top_k=16)),
        (
            "select: {top_k: 16, indexer: {heads: 2, head_dim: 128, scale: {block: 64, format: ue8m0}}}",
            "select",
            Select(16, Indexer(2, 128, "float8_e4m3", IndexerScale(64, "ue8m0"))),
        ),
        ("select: {top_k: 16, first: 4, last: 12}", "select", Select(16, first=4, last=12)),
        (
            "select: {top_k: 16, indexer: {heads: 2, head_dim: 64, hadamard: true}}",
            "select",
            Select(16, Indexer(2, 64, hadamard=True)),
        ),
        ("select: {blocks: {size: 64, top_k: 4}}", "select", Select(blocks=BlockSelect(64, 4))),
        (
            "select: {blocks: {size: 64, top_k: 4, first: 1, last: 2, per: kv_head, pool: mean}}",
            "select",
            Select(blocks=BlockSelect(64, 4, 1, 2, "kv_head")),
        ),
        ("softcap: 50", "softcap", 50.0),
        ("softcap: null", "softcap", None),
        ("alibi: true", "alibi", True),
        ("sink: learned", "sink", True),
        ("sink: none", "sink", False),
        ("sink: null", "sink", False),
        ("scale: 0.25", "scale", 0.25),
        ("scale: 1e-2", "scale", 0.01),
        ("scale: null", "scale", 0.125),
        ("dtype: float32", "dtype", "float32"),
    ],
)
def test_fields_and_shorthands(text, field, value):
    assert getattr(kind(text), field) == value


def test_expressions_are_parsed_in_any_yaml_style():
    assert kind("mask: i-j<8").mask == kind("mask: 'i - j < 8'").mask == kind("mask: >\n  i - j\n  < 8\n").mask
    assert kind('score: "s * gain"').score.scalars == ("gain",)


def test_heads_and_widths():
    only = parse_spec("heads: {query: 32, kv: 8}\nhead_dim: {qk: 192, v: 128}").kinds[0]
    assert (only.heads, only.heads.group, only.head_dim) == (Heads(32, 8), 4, HeadDim(192, 128))
    assert only.scale == 192**-0.5
    latent = parse_spec("heads: 16\nlatent: {rank: 512, rope: 64}").kinds[0]
    assert (latent.heads, latent.head_dim, latent.latent) == (Heads(16, 1), HeadDim(576, 512), Latent(512, 64))


def test_a_kind_overrides_defaults_and_turns_them_off():
    spec = parse_spec(
        """
        heads: 8
        head_dim: 64
        layers: 4
        causal: true
        softcap: 30
        sink: learned
        window: {total: 16}
        kinds:
          local: {}
          global: {causal: false, softcap: null, sink: none, window: null, heads: {query: 8, kv: 2}, head_dim: 128}
          latent: {latent: {rank: 128, rope: 32}}
        pattern: [local, global]
        """
    )
    local, wide, latent = spec.kinds
    assert (local.causal, local.softcap, local.sink, local.window) == (True, 30.0, True, Window(15, 0))
    assert (wide.causal, wide.softcap, wide.sink, wide.window) == (False, None, False, None)
    assert (wide.heads, wide.head_dim, wide.scale) == (Heads(8, 2), HeadDim(128, 128), 128**-0.5)
    assert latent.head_dim == HeadDim(160, 128)


def test_equal_semantics_have_equal_digests_whatever_they_are_called():
    one = parse_spec("heads: 4\nhead_dim: 64\ncausal: true\nkinds: {a: {window: {total: 9}}}").kinds[0]
    other = parse_spec("heads: 4\nhead_dim: 64\nkinds: {b: {causal: true, window: {left: 8}}}").kinds[0]
    assert one.digest() == other.digest()
    assert one.digest() != kind("causal: true\nwindow: {total: 8}").digest()


def test_load_spec_reads_a_file_and_says_why_it_cannot(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_bytes(b"\xef\xbb\xbfheads: 4\nhead_dim: 64\n")  # with a byte order mark
    assert load_spec(path).name == "tiny"
    path.write_bytes(b"heads: 4\nhead_dim: \xff\n")
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert str(caught.value) == f"{path}:2:11: the file is not UTF-8 text; save it as UTF-8"
    with pytest.raises(UsageError) as missing:
        load_spec(tmp_path / "none.yaml")
    assert str(missing.value) == f"{tmp_path}/none.yaml: No such file or directory; the path of a spec is needed"


@pytest.mark.parametrize("text", ["[" * 90_000, "- " * 40_000, "? " * 40_000, "{a: " * 20_000, "'" + "x" * 90_000])
def test_hostile_nesting_ends_quickly_in_an_error(text):
    with pytest.raises(SpecError):
        parse_spec(text)

"""Layers, loops, configs and quantities as people read them."""

import pytest

from attngen.config import Config
from attngen.plan import plan_forward
from attngen.report.arguments import needed
from attngen.report.configs import brief
from attngen.report.decided import decided, telling_length
from attngen.report.layers import compressed, head_dim, heads, scores
from attngen.report.loops import loops_in_words
from attngen.report.quantities import digits, duration, quantity, share
from attngen.spec import parse_spec


def kind_of(fields):
    return parse_spec("{heads: {query: 8, kv: 2}, head_dim: {qk: 64, v: 32}, " + fields + "}").kinds[0]


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([], "none"),
        ([4], "4"),
        ([0, 1], "0, 1"),
        (range(32), "0 to 31"),
        (range(0, 22, 3), "0, 3, 6, ..., 21"),
        ([5, 11, 17, 23, 29], "5, 11, 17, 23, 29"),
        ([n for n in range(22) if n % 3], "1, 2, 4, 5, ..., 19, 20"),
        ([n for n in range(34) if n % 6 != 5], "0 to 4, 6 to 10, ..., 30 to 33"),
        ([0, 1, 2, 7], "0 to 2, 7"),
        ([0, 1, 2, 7, 8, 9, 10], "0 to 2, 7 to 10"),
    ],
)
def test_compressed_layers(layers, words):
    assert compressed(list(layers)) == words


@pytest.mark.parametrize(
    ("fields", "sentences"),
    [
        ("scale: 1.0", ["every key: all keys; no mask but where the keys end"]),
        ("causal: true", ["causal: keys up to last; no mask up to first"]),
        ("window: {half: 64}", ["window: keys first - 64 to last + 64; no mask from last - 64 to first + 64"]),
        ("dilation: 4", ["dilation: all keys; every tile is masked"]),
        ("prefix: 7", ["every key, or prefix: all keys; no mask but where the keys end"]),
        (
            "causal: true, prefix: argument",
            ["causal, or prefix: keys up to max(last, prefix - 1); no mask up to max(first, prefix - 1)"],
        ),
        (
            "causal: true, always: {first: 4}, window: {total: 9}",
            [
                "always-visible first keys: keys up to min(last, 3); no mask up to min(first, 3)",
                "causal and window: keys first - 8 to last; no mask from last - 8 to first",
            ],
        ),
        (
            "causal: true, chunk: 512",
            [
                "causal and chunk: keys first // 512 * 512 to min(last, last // 512 * 512 + 511); "
                "no mask from last // 512 * 512 to min(first, first // 512 * 512 + 511)"
            ],
        ),
    ],
)
def test_loops(fields, sentences):
    assert loops_in_words(plan_forward(kind_of(fields))) == sentences


def test_a_kind_in_few_words():
    kind = kind_of("causal: true, softcap: 30, sink: learned")
    assert (heads(kind), head_dim(kind)) == ("8 / 2", "64 / 32")
    assert scores(kind) == "softcap 30, a learned sink a head"
    assert scores(kind_of("scale: 0.5")) == "softmax_scale 0.5"
    assert scores(kind_of("causal: true")) == ""


def test_arguments():
    kind = kind_of('causal: true, sink: learned, prefix: argument, score: "s + t * bias[h, i - j]"')
    assert [(name, shape) for name, shape, _ in needed(kind)] == [
        ("sink", "(heads,)"),
        ("prefix", "(batch,)"),
        ("bias", "2-D tensor"),
        ("t", "number"),
    ]


def test_what_is_decided_before_run_time():
    known, left_out = decided(kind_of("causal: true, documents: true, blocks: {size: 64}"))
    assert left_out == ("blocks", "documents") and known.causal and not known.documents
    plan_forward(known)


@pytest.mark.parametrize(
    ("fields", "length"),
    [("causal: true", 8192), ("window: {half: 64}", 2048), ("window: {total: 4097}", 16384), ("chunk: 1000000", 65536)],
)
def test_a_length_that_shows_the_mask(fields, length):
    assert telling_length(parse_spec("{heads: 8, head_dim: 64, " + fields + "}")) == length


def test_configs():
    config = Config(
        schedule="window", BLOCK_M=64, BLOCK_N=32, num_warps=4, num_stages=1, PACK_HEADS=1, loads="descriptor",
        SPLIT_MASKS=False, maxnreg=None, HEADS_TOGETHER=8,
    )  # fmt: skip
    assert brief(config) == "window 64x32 num_stages=1 num_warps=4 HEADS_TOGETHER=8 descriptor"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (digits(0), "0"),
        (digits(1234), "1234"),
        (digits(99.96), "100"),
        (digits(0.01234), "0.0123"),
        (quantity(1.755e12, "FLOP"), "1.75 TFLOP"),
        (quantity(512, "B"), "512 B"),
        (quantity(999.6e6, "B"), "1.00 GB"),
        (duration(0.2414), "0.241 ms"),
        (duration(0.0333), "33.3 us"),
        (duration(2100), "2.10 s"),
        (duration(None), "-"),
        (duration(float("nan")), "-"),
        (share(1, 3), "33%"),
        (share(1, 1000), "0.1%"),
        (share(0, 5), "0%"),
    ],
)
def test_quantities(text, wanted):
    assert text == wanted

"""The Hopper window schedule without a GPU: the keys its text keeps, what a compiler makes of it, what it refuses."""

import re
import subprocess
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from attngen import reference
from attngen.config import Config
from attngen.plan import plan_forward
from attngen.plan.hopper import MOST_SHARED
from attngen.plan.hopper_window import HopperWindowShape, resident_tiles, static_edges, why_not
from attngen.source import cross, load_source, render
from attngen.spec.model import Kind, Window
from tests.op.cases import kind_of
from tests.source.linted import assert_content, both_checks

pytestmark = pytest.mark.usefixtures("fresh_caches")


def window(left: int, right: int, heads=(8, 2), head_dim=64, dtype="bfloat16", **fields) -> Kind:
    dims = head_dim if isinstance(head_dim, tuple) else (head_dim, head_dim)
    return kind_of(heads=heads, head_dim=dims, dtype=dtype, window=Window(left, right), **fields)


def config_of(**values) -> Config:
    base = {"BLOCK_N": 64, "num_warps": 4, "num_stages": 2, "PACK_HEADS": 1, "WARPGROUPS": 1, "ACROSS": None}
    base |= {"schedule": "hopper_window", "maxnreg": 168, **values}
    return Config(BLOCK_M=64 * base["WARPGROUPS"], **base)


MODERNBERT = window(64, 64, heads=(12, 12))
GPT_OSS = window(127, 0, heads=(64, 8), causal=True, sink=True)
EXPRESSIONS = {"mask": "doc[b, i] == doc[b, j] and h % 2 == 0", "score": "s * gain + bias[h, i - j + 128]"}
NO_TURNS = {"PACK_HEADS": 4, "BLOCK_N": 32}  # one warpgroup has all heads of a group of four at once
WIDE, PAIR = {"maxnreg": 240}, {"maxnreg": 240, "WARPGROUPS": 2}

COMPILED = {
    "modernbert": (MODERNBERT, {}),
    "gpt-oss": (GPT_OSS, {}),
    "gpt-oss, three buffers": (GPT_OSS, {"num_stages": 3}),
    "gpt-oss, packed": (GPT_OSS, {"PACK_HEADS": 4, "BLOCK_N": 32, "maxnreg": 128}),
    "pair across heads": (GPT_OSS, PAIR),
    "pair across queries": (GPT_OSS, {**PAIR, "ACROSS": "queries"}),
    "small": (window(32, 31), {"maxnreg": 128}),
    "256 keys": (window(255, 0, causal=True), WIDE),
    "wide tiles": (window(127, 0, causal=True), {"BLOCK_N": 128, **WIDE}),
    "two chunks, float16": (window(127, 0, head_dim=96, dtype="float16"), {}),
    "values narrower": (window(127, 0, head_dim=(192, 128), causal=True), WIDE),
    "results apart": (window(127, 0, head_dim=(96, 40), causal=True), {}),
    "D128": (window(127, 0, head_dim=128, causal=True), {}),
    "D256": (window(127, 0, heads=(2, 2), head_dim=256, causal=True), WIDE),
    "softcap and alibi": (window(127, 0, softcap=30.0, alibi=True), {}),
    "chunk and dilation": (window(127, 0, chunk=100, dilation=2), {"PACK_HEADS": 2}),
}
RENDERED = COMPILED | {
    "mask and score": (window(127, 0, **EXPRESSIONS), WIDE),
    "mask and score, packed": (window(127, 0, **EXPRESSIONS), NO_TURNS),
}


@pytest.mark.parametrize("name", COMPILED)
def test_compiles_without_spills_or_waits_between_products(name):
    kind, values = COMPILED[name]
    plan, config = plan_forward(kind), config_of(**values)
    assert why_not(plan, config) is None
    ptx, shared = compiled(plan, config)
    report = assembled(ptx)
    assert "0 bytes spill stores, 0 bytes spill loads" in report
    assert not re.search(r"C75\d\d", report), "products wait for each other"
    assert int(re.search(r"Used (\d+) registers", report)[1]) <= config["maxnreg"]
    assert shared <= HopperWindowShape.of(plan, config).shared_bytes(plan) <= MOST_SHARED


def compiled(plan, config) -> tuple[str, int]:
    """PTX for sm_90 and the bytes of shared memory."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.experimental.gluon._runtime import GluonASTSource

    source = render(plan, config)
    function = load_source(source)
    made = triton.compile(
        GluonASTSource(fn=function, **cross.launch_signature(source, config)),
        target=GPUTarget("cuda", 90, 32),
        options=source.options,
    )
    return made.asm["ptx"], made.metadata.shared


def assembled(ptx: str) -> str:
    """What ptxas says of it."""
    from triton.backends.nvidia.compiler import get_ptxas

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ptx")
        path.write_text(ptx)
        command = [get_ptxas(90).path, "-v", "--gpu-name=sm_90a", str(path), "-o", str(Path(folder, "kernel.o"))]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return run.stdout + run.stderr


SPANS = [(64, 64), (127, 0), (63, 0), (0, 0), (100, 7), (7, 100), (-5, 60), (60, -5), (31, 32), (191, 0), (1, 250)]
STRUCTURES = [
    {},
    {"BLOCK_N": 32},
    {"BLOCK_N": 128},
    {"PACK_HEADS": 2, "BLOCK_N": 32},
    {"PACK_HEADS": 4},
    {"WARPGROUPS": 2},
    {"WARPGROUPS": 2, "ACROSS": "queries"},
    {"WARPGROUPS": 2, "ACROSS": "queries", "PACK_HEADS": 2, "BLOCK_N": 32},
    {"WARPGROUPS": 2, "PACK_HEADS": 2, "num_stages": 2},
]
SIZES = [  # seq_q, seq_k, offset, valid keys
    (200, 200, None, None),
    (1, 1, None, None),
    (1, 300, None, None),
    (70, 300, None, None),
    (300, 70, None, None),
    (150, 300, 13, (0, 300)),
    (150, 300, 90, (37, 250)),
    (150, 300, 90, (100, 90)),
    (150, 300, -400, (-3, 400)),
    (150, 300, 100000, None),
]


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
@pytest.mark.parametrize("span", SPANS, ids=str)
def test_rows_keep_the_keys_that_they_see(span, structure):
    left, right = span
    kind = kind_of(heads=(8, 1), head_dim=(64, 64), dtype="bfloat16", mask=f"j >= i - {left} and j <= i + {right}")
    plan, config = plan_forward(kind), config_of(**structure, maxnreg=None)
    assert plan.span == span
    assert static_edges(plan)
    if why_not(plan, config):
        pytest.skip(why_not(plan, config))
    for seq_q, seq_k, offset, valid in SIZES:
        exact = reference.visible(
            kind,
            seq_q,
            seq_k,
            offsets=None if offset is None else [offset],
            key_range=None if valid is None else [valid],
        ).numpy()
        first, end = (0, seq_k) if valid is None else (max(valid[0], 0), min(valid[1], seq_k))
        seen, done = emulate(plan, config, seq_q, seq_k, seq_k - seq_q if offset is None else offset, first, end)
        assert (done == 1).all(), "each query of each head once"
        assert (seen == exact).all(), (seq_q, seq_k, offset, valid)


def emulate(plan, config, seq_q, seq_k, offset, key_first, key_end):
    """The text's constants and masks, its columns counted out: keys seen (heads, seq_q, seq_k), and how often."""
    shape, text = HopperWindowShape.of(plan, config), render(plan, config).text
    c = {name: int(value) for name, value in re.findall(r"^(\w+) = gl\.constexpr\((-?\d+)\)", text, re.MULTILINE)}
    before, after = text.split("    if (key < key_first) | (key + TILES * BLOCK_N > key_end)")
    static, ends = re.findall(KEEP, before), re.findall(KEEP, after)
    assert [int(n) for n, *_ in ends] == list(range(c["TILES"]))
    seen = np.zeros((c["GROUP"], seq_q, seq_k), dtype=bool)
    done = np.zeros((c["GROUP"], seq_q), dtype=int)
    rows = np.arange(c["ROWS"])
    for tile, wg, turn in product(range(shape.programs(1, 1, seq_q)), range(c["WARPGROUPS"]), range(c["TURNS"])):
        apart = not shape.across_heads
        resident_first = tile * c["BLOCK_Q"] + offset - c["LEAD"]
        key = resident_first + (wg * c["QUERIES"] if apart else 0)
        start = wg * c["QUERIES"] // c["BLOCK_N"] if apart else 0
        assert resident_first + start * c["BLOCK_N"] == key
        assert start + c["TILES"] <= c["RESIDENT"]
        query = tile * c["BLOCK_Q"] + (wg * c["QUERIES"] if apart else 0) + rows % c["QUERIES"]
        names = {**c, "kv_head": 0, "turn": turn, "WG": wg}
        head = eval(re.search(r" head = (.+)", text)[1], {}, names) + rows // c["QUERIES"]
        for ahead in re.findall(r"next_head = (.+)", text):  # loaded now for a later turn
            later = eval(re.search(r" head = (.+)", text)[1], {}, {**names, "turn": turn + c["BUFFERS"] - 1})
            assert eval(ahead, {}, names) == later
        names = {**c, "row": rows}
        for name in ("first_column", "end_column"):
            names[name] = eval(re.search(rf" {name} = ([^#\n]+)", text)[1], {}, names)
        names |= {"key": key, "key_first": key_first, "key_end": key_end, "None": None}
        kept = np.ones((c["TILES"], c["ROWS"], c["BLOCK_N"]), dtype=bool)
        masks = static + (ends if key < key_first or key + c["TILES"] * c["BLOCK_N"] > key_end else [])
        for n, first, end in masks:
            column = np.arange(c["BLOCK_N"])[None, :]
            kept[int(n)] &= column >= (-np.inf if first == "None" else eval(first, {}, names))
            kept[int(n)] &= column < (np.inf if end == "None" else eval(end, {}, names))
        keys = key + np.arange(c["TILES"] * c["BLOCK_N"])
        kept = np.moveaxis(kept, 0, 1).reshape(c["ROWS"], -1)
        real = query < seq_q
        assert not kept[real][:, (keys < key_first) | (keys >= key_end)].any()
        inside = (keys >= 0) & (keys < seq_k)
        done[head[real], query[real]] += 1
        for h, q, row in zip(head[real], query[real], kept[real], strict=True):
            seen[h, q, keys[inside]] = row[inside]
    return seen, done


KEEP = r"s_(\d+) = keep\(\s*s_\d+,\s*(.+?),\s*(.+?)\s*\)\n"


@pytest.mark.parametrize(("span", "masks"), [((64, 64), 2), ((127, 0), 2), ((63, 0), 2), ((128, 0), 2), ((63, 63), 2)])
def test_few_tiles_are_masked(span, masks):
    _, tiles = resident_tiles(span, 64, 64)
    assert sum(tile.cut_before + tile.cut_after for tile in tiles) == masks


def test_the_same_plan_and_config_give_the_same_text():
    texts = {render(plan_forward(GPT_OSS), config_of()).text for _ in range(2)}
    assert len(texts) == 1
    assert render(plan_forward(GPT_OSS), config_of(num_stages=3)).text not in texts


@pytest.mark.parametrize(
    ("kind", "values", "reason"),
    [
        (kind_of(dtype="bfloat16", causal=True), {}, "bounded window"),
        (window(127, 0, always_first=4), {}, "bounded window"),
        (window(127, 0, dtype="float32"), {}, "16-bit"),
        (window(127, 0, head_dim=36), {}, "16 bytes"),
        (window(1000, 0), {"maxnreg": 240}, "keys"),
        (window(255, 0), {}, "registers"),
        (window(127, 0, heads=(1, 1), head_dim=256), {"BLOCK_N": 128, "maxnreg": 240}, "shared memory"),
        (window(127, 0, heads=(6, 2)), {"PACK_HEADS": 2}, "do not divide"),
        (window(127, 0, heads=(32, 2)), {"PACK_HEADS": 16}, "8 queries"),
        (window(127, 0, heads=(6, 2)), {"WARPGROUPS": 2, "ACROSS": "heads"}, "do not divide"),
        (window(127, 0), {"WARPGROUPS": 2, "ACROSS": "queries", "BLOCK_N": 128, "maxnreg": 240}, "begin"),
        (window(127, 0), {"num_stages": 5}, "buffers"),
        (window(127, 0), {"num_stages": 1}, "buffers"),
    ],
)
def test_what_does_not_fit_is_refused(kind, values, reason):
    assert reason in why_not(plan_forward(kind), config_of(**values))


def test_rows_must_be_those_of_the_warpgroups():
    assert "rows" in why_not(plan_forward(GPT_OSS), config_of().replace(BLOCK_M=128))


@both_checks
def test_ruff_has_nothing_to_say(check, tmp_path):
    for name, (kind, values) in RENDERED.items():
        path = tmp_path / f"{re.sub('[^a-zA-Z0-9]', '_', name)}.py"
        path.write_text(render(plan_forward(kind), config_of(**values)).text)
    assert_content(check, tmp_path)

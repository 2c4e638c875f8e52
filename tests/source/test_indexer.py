"""Kernels of an indexer and of quantisation, assembled where there is no GPU: registers, spills, loops, text."""

import pytest

from attngen.plan.indexer import plan_indexer
from attngen.plan.quantise import plan_latent, plan_pages, plan_quantise
from attngen.plan.space import default_config, feasible, feasible_anywhere
from attngen.source import compile_source, render
from attngen.target import get_target
from tests.op.indexer_cases import kind_of
from tests.source.linted import assert_content, both_checks
from tests.source.sass import assemble

H100 = get_target("h100")
SPILLS_OUTSIDE_LOOPS = 256  # bytes a thread
QUANTISERS = {
    "rows": plan_quantise(kind_of()),
    "rows of 96": plan_quantise(kind_of(head_dim=96, format="float32")),
    "rotated": plan_quantise(kind_of(), rotate=True, source="float32"),
    "pages": plan_pages(kind_of(), rotate=True),
    "pages of 96": plan_pages(kind_of(head_dim=96)),
    "latent": plan_latent(kind_of()),
}
PORTABLE = [
    (target, dtype, heads, clean)
    for target, dtypes in {
        "a100": ["bfloat16"],
        "h100": ["float8_e4m3", "float16"],
        "rtx4090": ["float8_e4m3"],
        "b200": ["float8_e4m3", "bfloat16"],
        "mi300x": ["bfloat16"],
    }.items()
    for dtype in dtypes
    for heads, clean in [(64, False), (24, True), (8, False), (128, False)]
]
HOPPER = {
    "64 heads": ((64, 128, "float8_e4m3"), {}, {}),
    "64 heads, all maxima": ((64, 128, "float8_e4m3"), {}, {"MIXED": False}),
    "64 heads, three warpgroups": ((64, 128, "float8_e4m3"), {}, {"WARPGROUPS": 3}),
    "64 heads, 128 keys": ((64, 128, "float8_e4m3"), {}, {"WARPGROUPS": 2, "BLOCK_N": 128}),
    "64 heads, four queries": ((64, 128, "float8_e4m3"), {}, {"WARPGROUPS": 2, "BLOCK_Q": 4}),
    "64 heads, one query": (
        (64, 128, "float8_e4m3"),
        {},
        {"WARPGROUPS": 2, "BLOCK_Q": 1, "BLOCK_N": 128, "MIXED": False},
    ),
    "64 heads, clean": ((64, 128, "float8_e4m3"), {"clean": True}, {}),
    "64 heads, bfloat16": ((64, 128, "bfloat16"), {"logits": "bfloat16"}, {}),
    "24 heads of 96 columns, clean": ((24, 96, "float8_e4m3"), {"clean": True}, {}),
    "16 heads, clean": ((16, 128, "float8_e4m3"), {"clean": True}, {}),
    "8 heads of 64 columns, clean": ((8, 64, "float8_e4m3"), {"clean": True}, {}),
    "8 heads of 32 columns": ((8, 32, "float16"), {}, {}),
    "100 heads of 64 columns, clean": ((100, 64, "bfloat16"), {"clean": True}, {}),
    "128 heads": ((128, 128, "float8_e4m3"), {}, {}),
}


pytestmark = pytest.mark.usefixtures("fresh_caches")


OFTEN = ("64 heads", "64 heads, all maxima", "64 heads, bfloat16", "24 heads of 96 columns, clean", "128 heads")


@pytest.mark.parametrize(
    ("target", "dtype", "heads", "clean"),
    [one if one[0] == "h100" or one[2] in (64, 24) else pytest.param(*one, marks=pytest.mark.slow) for one in PORTABLE],
)
def test_portable_defaults_do_not_spill(target, dtype, heads, clean):
    target = get_target(target)
    plan = plan_indexer(kind_of(heads), dtype=dtype, clean=clean)
    config = default_config(plan, target, able=lambda config: config["schedule"] == "portable")
    resources = compile_source(plan, config, target)
    assert resources.spills == 0, config.label()
    assert resources.shared <= target.shared_per_block and 0 < resources.registers <= target.registers_per_thread


@pytest.mark.parametrize("name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in HOPPER])
def test_hopper_loops_are_what_they_should_be(name):
    (heads, dim, dtype), fields, changes = HOPPER[name]
    plan = plan_indexer(kind_of(heads, dim), dtype=dtype, **fields)
    config = default_config(plan, H100).replace(**changes)
    assert config["schedule"] == "hopper" and feasible(plan, config, H100) is None
    made = assemble(plan, config)
    assert not made.warnings
    assert made.spills <= SPILLS_OUTSIDE_LOOPS
    assert len(made.loops) == config["WARPGROUPS"]
    products = config["BLOCK_N"] * config["BLOCK_Q"] * plan.padded_heads // 128  # of a thread
    deep = plan.width * plan.element_bytes // 32
    for count in made.loops:
        assert count["LDL"] + count["STL"] == 0, count
        assert count["QGMMA"] + count["HGMMA"] == deep * config["BLOCK_N"] // 64
        # Nothing twice: one maximum and one weight a product, and no layout changes through shared memory.
        assert count["FMNMX"] == products // (2 if config["MIXED"] else 1) and count["LDS"] == count["STS"] == 0
        assert count["FFMA"] + count["FMUL"] <= products * 1.3


@pytest.mark.parametrize("target", ["h100", "rtx4090", "b200"])
@pytest.mark.parametrize("name", QUANTISERS)
def test_quantisation_does_not_spill(name, target):
    plan, target = QUANTISERS[name], get_target(target)
    resources = compile_source(plan, default_config(plan, target), target)
    assert resources.spills == 0 and resources.registers <= 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every structure that the templates have, a file each."""
    made = tmp_path_factory.mktemp("generated")
    texts = {name: render(plan, default_config(plan, H100)).text for name, plan in QUANTISERS.items()}
    for heads, dim in ((64, 128), (24, 96)):
        for dtype in ("float8_e4m3", "bfloat16"):
            for clean in (False, True):
                plan = plan_indexer(kind_of(heads, dim), dtype=dtype, clean=clean)
                for config in feasible_anywhere(plan, H100):
                    name = (
                        f"{config['schedule']} {heads} {dtype} {clean} {config.get('WARPGROUPS')} {config.get('MIXED')}"
                    )
                    texts.setdefault(name, render(plan, config).text)
    for name, text in texts.items():
        (made / f"{''.join(c if c.isalnum() else '_' for c in name)}.py").write_text(text)
    return made


@both_checks
def test_ruff_has_nothing_to_say(folder, check):
    assert_content(check, folder)

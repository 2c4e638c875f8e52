"""Generated text: three kernels kept whole for review, and all of them as a linter and a formatter want them."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from attngen.config import Config
from attngen.plan import plan_forward
from attngen.plan.space import feasible_anywhere
from attngen.source import render, template_digest
from attngen.spec.model import HeadDim, Heads, Kind, Window
from attngen.target import get_target
from tests.op.cases import config_of, kind_of
from tests.op.test_float8 import FIELDS as FLOAT8
from tests.op.test_float8 import float8
from tests.op.test_interpreter import FIELDS, windowed
from tests.source.linted import assert_content, both_checks
from tests.source.test_cross_compile import KERNELS
from tests.source.test_hopper import KERNELS as HOPPER

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
REGENERATE = "ATTNGEN_REGENERATE"  # set, the files are written instead of compared: review the difference

BFLOAT16 = {"dtype": "bfloat16", "heads": (64, 8), "head_dim": (64, 64)}
KEPT = {
    "causal": (kind_of(causal=True, **BFLOAT16), config_of(loads="descriptor", BLOCK_M=64, BLOCK_N=64)),
    "window": (
        kind_of(causal=True, window=Window(127, 0), sink=True, **BFLOAT16),
        config_of(schedule="window", loads="pointer", BLOCK_M=64, BLOCK_N=64),
    ),
    "everything": (
        kind_of(
            heads=(8, 2),
            head_dim=(96, 40),
            causal=True,
            window=Window(127, 0),
            chunk=1024,
            dilation=2,
            prefix="argument",
            always_first=4,
            global_tokens=2,
            mask="doc[b, i] == doc[b, j] or j > i - 1000 and h % 2 == 0",
            softcap=30.0,
            alibi=True,
            score="s * gain + bias[h, i - j + 128]",
            sink=True,
        ),
        config_of(BLOCK_M=64, PACK_HEADS=4),
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept_kernels(name):
    path = GOLDEN / f"{name}.txt"
    text = render(*_planned(*KEPT[name])).text
    if os.environ.get(REGENERATE):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), (
        f"generated code changed: set {REGENERATE}=1, run this again, review the difference"
    )


def test_the_same_plan_and_config_give_the_same_text():
    plan, config = _planned(*KEPT["everything"])
    again = plan_forward(KEPT["everything"][0])
    assert render(plan, config) == render(again, config)
    assert render(plan, config).digest != render(plan, config.replace(PACK_HEADS=1)).digest


LONG = ("mask of operators", "score of functions")  # one expression of theirs is longer than a line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every example at its default configs, and every field in every structure, a file each."""
    made = tmp_path_factory.mktemp("generated")
    sources = {name: (plan, config) for name, (plan, config, _) in KERNELS.items()}
    sources |= {name: _planned(*kept) for name, kept in KEPT.items()}
    for field, kind in FIELDS.items():
        grouped = Kind(**{**vars(kind), "heads": Heads(4, 2)})
        sources[f"{field} pointer"] = _planned(kind, config_of())
        sources[f"{field} packed"] = _planned(grouped, config_of(loads="descriptor", PACK_HEADS=2, SPLIT_MASKS=False))
        if windowed(kind):
            sources[f"{field} window"] = _planned(grouped, config_of(schedule="window", BLOCK_N=32))
    for name, (kind, changes) in HOPPER.items():
        sources[f"hopper {name}"] = _hopper(kind, **changes)
    for field, kind in FIELDS.items():
        wide = Kind(**{**vars(kind), "heads": Heads(4, 2), "head_dim": HeadDim(64, 64)})
        sources[f"{field} hopper"] = _hopper(wide)
        sources[f"{field} hopper packed"] = _hopper(wide, BLOCK_M=128, PACK_HEADS=2, PING_PONG=True)
    sources["functions hopper"] = _hopper(kind_of(head_dim=(64, 64), score="tanh(s) * sigmoid(s) + i // 3"))
    for field, values in FLOAT8.items():
        kind = float8(head_dim=(80, 48), **values)
        sources[f"{field} fp8"] = _planned(kind, config_of(loads="descriptor", PACK_HEADS=2))
        if windowed(kind):
            sources[f"{field} fp8 window"] = _planned(kind, config_of(schedule="window"))
    for name, (plan, config) in sources.items():
        if name.startswith(LONG):
            continue
        (made / f"{''.join(c if c.isalnum() else '_' for c in name)}.py").write_text(render(plan, config).text)
    return made


@both_checks
def test_ruff_has_nothing_to_say(folder, check):
    assert_content(check, folder)


def _hopper(kind, **changes):
    plan = plan_forward(kind)
    first = next(config for config in feasible_anywhere(plan, get_target("h100")) if config["schedule"] == "hopper")
    return plan, first.replace(**changes)


def _planned(kind, config):
    return plan_forward(kind), config


@pytest.fixture
def templates(tmp_path, monkeypatch):
    """A copy of the templates, free to change."""
    module = sys.modules[render.__module__]
    shutil.copytree(ROOT / "templates", tmp_path / "templates")
    monkeypatch.setattr(module, "resource_dir", lambda name: tmp_path / name)
    caches = (module._environment.cache_clear, module._digest.cache_clear)
    for clear in caches:
        clear()
    yield tmp_path / "templates", caches
    monkeypatch.undo()
    for clear in caches:
        clear()


@pytest.mark.parametrize(
    ("changed", "aged"),
    [
        ("forward_hopper.py.j2", {"hopper"}),
        ("forward_window.py.j2", {"window"}),
        ("parts/common.j2", {"portable", "window"}),
        ("parts/hopper_visit.j2", {"hopper"}),
        ("package/op.py.j2", set()),
    ],
)
def test_a_template_ages_the_tunings_of_its_schedule_alone(templates, changed, aged):
    folder, caches = templates
    schedules = ("portable", "window", "hopper")
    before = {name: template_digest("forward", config_of(schedule=name)) for name in schedules}
    (folder / changed).write_text((folder / changed).read_text() + "{# another #}\n")
    for clear in caches:
        clear()
    assert {name for name in schedules if template_digest("forward", config_of(schedule=name)) != before[name]} == aged
    assert len(set(before.values())) == 3 and template_digest("forward", Config(schedule="mosaic")) == ""

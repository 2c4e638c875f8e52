"""Every example spec parses, opens with a line that says what it is, and survives being written."""

from pathlib import Path

import pytest

from attngen.spec import dump_spec, load_spec, parse_spec

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path):
    spec = load_spec(path)
    assert spec.name == path.stem
    assert path.read_text().startswith("# ")
    assert parse_spec(dump_spec(spec)) == spec


def test_kinds_and_layers_are_those_of_the_models():
    specs = {path.stem: load_spec(path) for path in EXAMPLES}
    modernbert, gemma, scout = specs["modernbert-base"], specs["gemma-3-4b"], specs["llama-4-scout"]
    assert [layer for layer, kind in enumerate(modernbert.layer_kinds) if kind == "global"] == [
        0,
        3,
        6,
        9,
        12,
        15,
        18,
        21,
    ]
    assert [layer for layer, kind in enumerate(gemma.layer_kinds) if kind == "global"] == [5, 11, 17, 23, 29]
    assert scout.layer_kinds.count("global") == 12
    assert scout.layer_kinds[3] == "global"
    deepseek = specs["deepseek-v3.2"].kind("sparse")
    assert (deepseek.heads.kv, deepseek.head_dim.qk, deepseek.head_dim.v) == (1, 576, 512)
    assert specs["mistral-7b"].kind("attention").window.left == 4095

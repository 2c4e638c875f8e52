"""``attngen check``: what a spec says, in words and as JSON."""

import json

import pytest

from attngen.resources import resource_dir

EXAMPLES = sorted((resource_dir("templates").parent / "examples").glob("*.yaml"))


def test_a_spec_in_words(attngen, examples):
    result = attngen("check", examples / "modernbert-base.yaml")
    assert result.exit_code == 0 and result.stderr == ""
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "modernbert-base: 22 layers, 2 kinds"
    assert "global 0, 3, 6, ..., 21 (8) every key 12 64 bfloat16" in lines
    assert "local 1, 2, 4, 5, ..., 19, 20 (14) |i - j| <= 64 12 64 bfloat16" in lines


def test_what_a_call_must_give_and_what_scores_become(attngen, examples):
    text = attngen("check", examples / "gpt-oss-20b.yaml").stdout
    assert "a learned sink a head" in text and "arguments" in text and " sink" in text and "64 / 8" in text


def test_what_is_not_generated_yet_is_said_and_no_error(attngen, tmp_path):
    path = tmp_path / "blocks.yaml"
    path.write_text("{name: x, heads: 2, head_dim: 64, blocks: {size: 40}}")
    result = attngen("check", path)
    assert result.exit_code == 0
    assert "note: kind 'attention': blocks of 40 are not generated" in result.stdout
    path.write_text("{name: x, heads: 2, head_dim: 64, select: {top_k: 4, indexer: {heads: 2, head_dim: 64}}}")
    assert "note: kind 'attention': its indexer has 2 heads" in attngen("check", path).stdout


def test_json(attngen, examples):
    values = json.loads(attngen("check", examples / "deepseek-v3.2.yaml", "--json").stdout)
    (kind,) = values["kinds"]
    assert values["layers"] == ["sparse"] * 61 and kind["layers"] == list(range(61))
    assert kind["generated"] is True and kind["select"]["top_k"] == 2048 and kind["causal"] is True


def test_external_layers_are_named(attngen, tmp_path):
    path = tmp_path / "mixed.yaml"
    path.write_text("{name: mixed, heads: 2, head_dim: 64, layers: 4, kinds: {full: {}}, pattern: [external, full]}")
    assert "layers 0, 2 are not attention" in attngen("check", path).stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example(attngen, path):
    result = attngen("check", path)
    assert result.exit_code == 0 and result.stdout.startswith(f"{path.stem}: ")

"""The benchmark on a GPU, small: every installed system has a time, and rows are filled."""

import json

import pytest
from click.testing import CliRunner

from attngen.cli import main

pytestmark = pytest.mark.gpu


def test_a_small_comparison(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNGEN_DB", str(tmp_path / "db"))
    monkeypatch.chdir(tmp_path)
    spec = tmp_path / "x.yaml"
    spec.write_text("{name: x, heads: {query: 8, kv: 2}, head_dim: 64, causal: true}")
    command = ["bench", str(spec), "--seq", "1024", "--against", "all", "--host", "--json", "r.json"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    values = json.loads((tmp_path / "r.json").read_text())
    rows = {row["system"]: row for row in values["rows"]}
    for system in ("attngen", "sdpa", "flex"):
        assert rows[system]["ms"] > 0 and rows[system]["tflops"] > 0 and 0 < rows[system]["roofline"] < 1.5
    host = {row["system"]: row for row in values["host"]}
    assert 0 < host["attngen"]["call_us"] < 500 and host["attngen"]["first_warm_s"] < host["attngen"]["first_cold_s"]

"""The real thing: kernels in Triton's interpreter, right ones and one that was broken on purpose."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attngen.errors import NotGeneratedError
from attngen.spec import parse_spec
from attngen.target import get_target
from attngen.verify.interpreted import InterpreterError, verify_interpreted

ROOT = Path(__file__).parents[2]
SPEC = "{name: tiny, heads: {query: 2, kv: 1}, head_dim: 16, causal: true, window: {total: 9}, dtype: bfloat16}"

FLOAT8 = "{name: tiny, heads: {query: 4, kv: 2}, head_dim: 32, causal: true, sink: learned, dtype: float8_e4m3}"


def test_generated_kernels_are_right():
    found = list(verify_interpreted(parse_spec(SPEC), ["attention"], get_target("h100"), seqs=(70,)))
    assert {finding.status for finding in found} == {"ok"}
    assert any("pointer" in finding.config for finding in found)
    assert any("descriptor" in finding.config for finding in found)
    assert {finding.kernel for finding in found} == {"forward", "backward_rows", "backward_kv", "backward_q"}


@pytest.mark.slow
def test_generated_gradients_of_what_scores_read_are_right():
    text = "{name: reads, heads: {query: 4, kv: 2}, head_dim: 16, score: 's * g[h] + u[j] + d[i - j + 9] + e[i, j]'}"
    found = list(verify_interpreted(parse_spec(text), ["attention"], get_target("h100"), seqs=(70,)))
    assert {finding.status for finding in found} == {"ok"}
    assert "backward_elements" in {finding.kernel for finding in found}


def test_fp8_is_verified_in_fp8():
    found = list(verify_interpreted(parse_spec(FLOAT8), ["attention"], get_target("h100"), seqs=(70,)))
    assert {finding.status for finding in found} == {"ok"}
    assert all(2.0**-6 < finding.error for finding in found)  # float16's share of FP8's bound would be far less


def test_a_bound_that_is_broken_on_purpose_is_caught(tmp_path):
    """The same package with one bound of the plan changed: the last visible key of each query is lost."""
    for folder in ("attngen", "templates"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    module = tmp_path / "attngen" / "plan" / "visibility.py"
    right = "return (Bound(I + 1),)"
    assert right in module.read_text()
    module.write_text(module.read_text().replace(right, "return (Bound(I),)"))
    spec = tmp_path / "tiny.yaml"
    spec.write_text(SPEC)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "ATTNGEN_CACHE": str(tmp_path / "cache")}
    environment["ATTNGEN_DB"] = str(tmp_path / "tunings.sqlite")
    command = [sys.executable, "-m", "attngen", "verify", str(spec), "--interpret", "--seq", "70"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 1, done.stderr
    assert "failed: attention, 1 x 70 x 70, " in done.stdout and "wrong" in done.stdout
    assert done.stderr == ""


def test_kinds_without_kernels_are_refused_before_anything_runs():
    spec = parse_spec("{heads: 2, head_dim: 64, blocks: {size: 40}}")
    with pytest.raises(NotGeneratedError, match="blocks"):
        list(verify_interpreted(spec, ["attention"], get_target("h100")))


def test_a_child_that_dies_says_why(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho no module called attngen >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(InterpreterError, match="status 3: no module called attngen"):
        list(verify_interpreted(parse_spec(SPEC), ["attention"], get_target("h100"), seqs=(4,)))

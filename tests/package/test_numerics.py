"""Generated packages compute what the reference says: in the interpreter, and on a GPU."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attngen import reference
from attngen.inputs import make_inputs
from attngen.package import write_package
from attngen.spec import dump_spec, parse_spec
from attngen.target import detect
from attngen.tuner.checks import TOLERANCE
from tests.package.specs import H100, every_argument, small, tuned

ROOT = Path(__file__).parents[2]
HALF_ULP = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # of the largest rounding, relative


def check(report, dtype):
    """Rounding of the probabilities and of the output, at most half a unit each; lse in float32."""
    for case, error in report.items():
        assert error["out"] <= 2 * HALF_ULP[dtype], (case, error)
        assert error["lse"] <= 2.0**-24 * 64 * max(error["largest"], 1), (case, error)


def interpret(folder, spec, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(dump_spec(spec))
    child = subprocess.run(
        [sys.executable, "-m", "tests.package.interpreted", str(folder), str(path)],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    return json.loads(child.stdout)


@pytest.mark.parametrize("name", ["modernbert-base", "gpt-oss-20b"])
def test_examples_in_the_interpreter(name, tmp_path):
    spec = small(name)
    write_package(spec, tmp_path / "made", target=H100, db=str(tmp_path / "none.sqlite"))
    report = interpret(tmp_path / "made", spec, tmp_path)
    assert len(report) == 3 * len(spec.kinds)
    check(report, "float16")


def test_every_argument_and_several_kernels_in_the_interpreter(tmp_path):
    """Lengths up to 512 take pointer loads here, though the package has descriptors too."""
    spec = every_argument()
    write_package(spec, tmp_path / "made", target=H100, db=tuned(spec, tmp_path / "tuned.sqlite"))
    check(interpret(tmp_path / "made", spec, tmp_path), "float16")


def test_fp8_in_the_interpreter(tmp_path):
    """One op in FP8 and one that is not, in one package."""
    text = "{name: mixed, heads: {query: 4, kv: 2}, head_dim: 32, kinds: {eight: {dtype: float8_e4m3, causal: true}, "
    spec = parse_spec(text + "half: {dtype: float16}}, pattern: [eight, half]}")
    write_package(spec, tmp_path / "made", target=H100, db=str(tmp_path / "none.sqlite"))
    report = interpret(tmp_path / "made", spec, tmp_path)
    check({name: error for name, error in report.items() if name.startswith("half")}, "float16")
    for case, error in report.items():
        if case.startswith("eight"):
            assert 2.0**-8 < error["out"] <= TOLERANCE["float8_e4m3"], (case, error)
            assert error["lse"] <= 2.0**-24 * 64 * max(error["largest"], 1), (case, error)


def test_the_comparison_can_fail(tmp_path):
    """A package whose window is one key too wide is seen."""
    spec = small("modernbert-base")
    write_package(spec, tmp_path / "made", target=H100, db=str(tmp_path / "none.sqlite"))
    kernel = tmp_path / "made" / "_local_kernel_portable.py"
    text = kernel.read_text()
    assert "i + 65" in text
    kernel.write_text(text.replace("i + 65", "i + 66"))
    child = "from tests.package.specs import small; from attngen.inputs import make_inputs; import torch, made"
    code = f"""
{child}
from attngen import reference
kind = small("modernbert-base").kind("local")
inputs = make_inputs(kind, 1, 160, 160, device="cpu", seed=1)
out = made.local(**inputs)
exact, _ = reference.attention(kind, **inputs)
print(float((out - exact).norm() / exact.norm()))
"""
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert float(run.stdout) > 10 * HALF_ULP["float16"]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["modernbert-base", "gpt-oss-20b", "gemma-3-4b", "llama-4-scout", "t5-base"])
def test_examples_on_the_gpu(name, tmp_path, monkeypatch):
    spec = small(name, "bfloat16")
    package = f"made_{name.replace('-', '_')}"
    write_package(spec, tmp_path / package, target=detect(), db=str(tmp_path / "none.sqlite"))
    monkeypatch.syspath_prepend(str(tmp_path))
    made = importlib.import_module(package)
    for kind in spec.kinds:
        for seq_q, seq_k in ((1, 700), (1000, 1000), (333, 2100)):
            inputs = make_inputs(kind, 2, seq_q, seq_k, device="cuda", seed=4)
            out, lse = made.attention(**inputs, layer=spec.layer_kinds.index(kind.name), return_lse=True)
            exact_out, exact_lse = reference.attention(kind, **inputs)
            assert (out - exact_out).norm() / exact_out.norm() <= 2 * HALF_ULP["bfloat16"]
            assert torch.isfinite(out).all()
            assert (lse - exact_lse).abs().max() <= 2.0**-24 * 64 * max(float(exact_lse.abs().max()), 1)

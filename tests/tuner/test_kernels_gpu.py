"""A tuning's winner is compiled once: a process that finds Triton's cache empty takes it from the database."""

import os
import subprocess
import sys

import pytest
import torch

from attngen.database import open_database
from attngen.plan import plan_forward
from attngen.plan.backward import plan_backward
from attngen.problem import Problem
from attngen.spec import parse_spec
from attngen.target import detect
from attngen.tuner import tune

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

SPEC = "{name: kept, heads: 8, head_dim: 64, causal: true}"
FIRST_CALL = f"""
import sys
import torch, triton
import attngen
from attngen.inputs import make_inputs
from attngen.spec import parse_spec

hits = []
triton.knobs.compilation.listener = lambda **about: hits.append(about["cache_hit"])
spec = parse_spec({SPEC!r})
kind = spec.kinds[0]
attn = attngen.load(spec, db=sys.argv[1])
attn[kind.name](**make_inputs(kind, 2, 1024, 1024, device="cuda"))
torch.cuda.synchronize()
print(hits)
"""


def test_a_first_call_finds_the_winner(tmp_path):
    path = str(tmp_path / "tunings.sqlite")
    plan = plan_forward(parse_spec(SPEC).kinds[0])
    problem = Problem("forward", plan.kind.digest(), 2, 1024, 1024)
    result = tune(plan, problem, detect(), open_database(path), trials=2)
    assert result.best is not None
    environment = {
        **os.environ,
        "TRITON_CACHE_DIR": str(tmp_path / "triton"),
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
    }
    command = [sys.executable, "-c", FIRST_CALL, path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[True]"]


@pytest.mark.parametrize("kernel", ["backward_rows", "backward_kv", "backward_q", "backward_elements"])
def test_kernels_of_a_backward_pass_are_tuned(kernel, tmp_path):
    """Each is checked against the reference, and none that is tried is wrong."""
    text = "{heads: {query: 8, kv: 4}, head_dim: 64, causal: true, sink: learned, score: 's + w[i] + u[j] + e[i, j]'}"
    kind = parse_spec(text).kinds[0]
    plan = next(plan for plan in plan_backward(kind) if plan.kernel == kernel)
    db = open_database(str(tmp_path / "tunings.sqlite"))
    result = tune(plan, Problem(kernel, kind.digest(), 2, 2048, 2048), detect(), db, trials=6)
    assert result.best is not None and result.best.source == "measured"
    assert "wrong" not in dict(result.failures)

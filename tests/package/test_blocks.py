"""Packages of kinds that select blocks and of kinds in branches: what they compute, hold and refuse."""

import importlib
import json
import os
import subprocess
import sys

import pytest
import torch

import attngen
from attngen.inputs import make_inputs
from attngen.package import package_files, write_package
from attngen.spec import dump_spec, load_spec
from attngen.target import detect
from attngen.tuner.checks import TOLERANCE
from tests.package.specs import EXAMPLES, H100, both, choosing
from tests.package.test_numerics import ROOT, check

HALF, WHOLE = torch.float16, torch.int32


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The packages of blocks and branches, and of keys beside blocks."""
    folder = tmp_path_factory.mktemp("blocks")
    for spec in (choosing(), both()):
        write_package(spec, folder / f"made_{spec.name}", target=H100, db=str(folder / "none.sqlite"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("made_choosing"), importlib.import_module("made_both")


def test_numerics_in_the_interpreter(made, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(dump_spec(choosing()))
    child = subprocess.run(
        [sys.executable, "-m", "tests.package.interpreted_blocks", os.path.dirname(made[0].__file__), str(path)],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    report = json.loads(child.stdout)
    assert len(report) == 8
    check(report, "float16")


def test_layers_are_runs_and_branches_have_names_of_their_own(made):
    package, _ = made
    assert package.LAYERS == [package.moba] * 3 + [package.shared] * 3 + [package.nsa] * 3 + [package.nsa_near]
    assert package.nsa_near_op is not package.nsa_near
    assert {"nsa", "nsa_coarse", "nsa_chosen", "nsa_near_op"} < set(package.__all__)


def test_configs_of_blocks_beside_those_of_hopper(made):
    """Where some table has kernels of Hopper alone, every table is asked for others."""
    selecting = importlib.import_module("made_both._selecting")
    module = importlib.import_module("made_both.blocks")
    for table in (module._CHOOSE, module._ATTEND):
        assert selecting.choose(table, 40, False) in table


def calls(kind="moba", seq_q=6, seq_k=40, **changes):
    spec = choosing().kind(kind)
    heads = spec.heads
    return {
        "q": torch.zeros(2, heads.query, seq_q, 48, dtype=HALF),
        "k": torch.zeros(2, heads.kv, seq_k, 48, dtype=HALF),
        "v": torch.zeros(2, heads.kv, seq_k, 32, dtype=HALF),
        **({"sink": torch.zeros(heads.query)} if spec.sink else {}),
        **({"gates": torch.zeros(2, 8, 6, 3), "near_sink": torch.zeros(8)} if kind == "nsa" else {}),
        **changes,
    }


def zeros(*shape, dtype=HALF):
    return torch.zeros(shape, dtype=dtype)


REFUSED = {
    "keys": (
        "moba",
        {"k": zeros(2, 2, 40, 32)},
        ValueError,
        r"moba: k has shape \(2, 2, 40, 32\); \(2, 2, 40, 48\) is",
    ),
    "sink": ("moba", {"sink": zeros(2)}, ValueError, r"moba: sink has shape \(2,\); \(4,\) is needed"),
    "lists": (
        "moba",
        {"blocks": zeros(2, 2, 6, 3, dtype=WHOLE)},
        ValueError,
        r"moba: blocks has shape \(2, 2, 6, 3\); \(2, 4, 6, blocks of a query\) is needed",
    ),
    "lists of heads": (
        "shared",
        {"blocks": zeros(2, 4, 6, 3, dtype=WHOLE)},
        ValueError,
        r"shared: blocks has shape \(2, 4, 6, 3\); \(2, 2, 6, blocks of a query\) is needed",
    ),
    "lists' dtype": (
        "moba",
        {"blocks": zeros(2, 4, 6, 3)},
        TypeError,
        "blocks is torch.float16; torch.int32 is needed",
    ),
    "offsets": ("moba", {"offsets": zeros(2)}, TypeError, "moba: offsets is torch.float16; int32 is needed"),
    "gates": (
        "nsa",
        {"gates": torch.zeros(2, 8, 6)},
        ValueError,
        r"nsa: gates has shape \(2, 8, 6\); \(2, 8, 6, 3\) is needed, one for each of coarse, chosen, near",
    ),
    "gates' dtype": ("nsa", {"gates": zeros(2, 8, 6, 3, dtype=WHOLE)}, TypeError, "gates is torch.int32; a floating"),
    "half a pair": ("nsa", {"near_k": zeros(2, 1, 40, 48)}, ValueError, "nsa: near_k and near_v are given together"),
    "compressed": (
        "nsa",
        {"coarse_k": zeros(2, 1, 10, 48), "coarse_v": zeros(2, 1, 10, 32)},
        ValueError,
        "nsa: coarse_k has 10 keys; 9 stand for 40",
    ),
    "lse": ("nsa", {"return_lse": True}, TypeError, "unexpected keyword argument 'return_lse'"),
    "branch": ("nsa_chosen", {}, ValueError, r"nsa_chosen: blocks is needed for 40 keys: lists that select\(\) gives"),
    "positions": ("nsa_coarse", {}, TypeError, "missing 1 required keyword-only argument: 'offsets'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(made, case, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    function, changes, error, message = REFUSED[case]
    given = calls("nsa") if function.startswith("nsa") else calls(function)
    if function.startswith("nsa_"):
        del given["gates"], given["near_sink"]
    with pytest.raises(error, match=message):
        getattr(made[0], function)(**{**given, **changes})


def test_a_selection_by_what_is_paid_refuses_other_counts(made, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    select = importlib.import_module("made_choosing.nsa_chosen").select
    with pytest.raises(ValueError, match="select: k has 10 keys; 9 stand for 40"):
        select(zeros(2, 8, 6, 48), zeros(2, 1, 10, 48), lse=torch.zeros(2, 8, 6), seq_k=40)
    with pytest.raises(ValueError, match=r"select: lse has shape \(2, 8\); \(2, 8, 6\) is needed"):
        select(zeros(2, 8, 6, 48), zeros(2, 1, 9, 48), lse=torch.zeros(2, 8), seq_k=40)


def test_gradients_and_cpu_tensors_are_refused(made, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="nsa: q is on the CPU; a GPU is needed"):
        made[0].nsa(**calls("nsa"))
    with pytest.raises(RuntimeError, match="moba: q requires a gradient and there is no backward pass"):
        made[0].moba(**calls(q=zeros(2, 4, 6, 48).requires_grad_()))


@pytest.mark.parametrize(("seq_q", "seq_k"), [(0, 40), (6, 0)])
def test_nothing_to_attend(made, seq_q, seq_k, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    lists = zeros(2, 4, seq_q, 0, dtype=WHOLE)
    for given in ({}, {"blocks": lists}):
        out, lse = made[0].moba(**calls("moba", seq_q, seq_k), **given, return_lse=True)
        assert out.shape == (2, 4, seq_q, 32) and not out.any() and bool((lse == -torch.inf).all())
    out = made[0].nsa(**calls("nsa", seq_q, seq_k, gates=torch.ones(2, 8, seq_q, 3)))
    assert out.shape == (2, 8, seq_q, 32) and not out.any()


def test_the_readme_says_how_to_choose():
    text = " ".join(package_files(choosing(), "p", target=H100)["README.md"].split())
    for part in (
        "out = p.moba(q, k, v, sink=sink)",
        "out = p.nsa(q, k, v, gates=gates, near_sink=near_sink)",
        "`moba` attends to 3 blocks of 8 keys for each query, a list for each head.",
        "the last is always selected",
        "`nsa` is the sum of 3 branches, each times its gate",
        "| `nsa_near_op` | j <= i and j >= i - 19 | in `nsa` |",
        "`moba: block_select`",
        "`shared: routed`",
        "`nsa_chosen: gathered`",
        "`moba_whole`",
    ):
        assert part in text, part


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["moba-llama-3.1-8b", "nsa-27b"])
def test_packages_on_the_gpu(name, tmp_path, monkeypatch):
    """Against attngen's own ops, which are checked against the reference."""
    spec, package = load_spec(EXAMPLES / f"{name}.yaml"), f"made_{name[:4].strip('-')}"
    write_package(spec, tmp_path / package, target=detect(), db=str(tmp_path / "none.sqlite"))
    monkeypatch.syspath_prepend(str(tmp_path))
    made, attn = importlib.import_module(package), attngen.load(spec, db=str(tmp_path / "none.sqlite"))
    kind = spec.kinds[0]
    for seq_q, seq_k in ((1, 53000), (700, 53100), (300, 1000)):
        inputs = make_inputs(
            spec.kinds[-1] if kind.select else kind.branches[-1], 1, seq_q, seq_k, device="cuda", seed=4
        )
        if kind.branches:
            inputs["gates"] = torch.rand(1, kind.heads.query, seq_q, len(kind.branches), device="cuda")
        out, exact = made.attention(**inputs, layer=0), attn(**inputs, layer=0)
        assert float((out.double() - exact).norm() / exact.double().norm()) <= TOLERANCE[kind.dtype]

"""Packages of kinds that select keys: what they compute, what their kernels are given, and what they refuse."""

import importlib
import json
import os
import subprocess
import sys

import pytest
import torch

from attngen import reference
from attngen.inputs_sparse import make_index, make_indices
from attngen.op import Selector
from attngen.package import package_files, write_package
from attngen.package.configs import config_table
from attngen.plan.boxes import is_gluon
from attngen.plan.kernels import launched_plans
from attngen.source import render
from attngen.spec import dump_spec, load_spec
from attngen.target import detect
from attngen.tuner.checks import TOLERANCE
from tests.package.specs import EXAMPLES, H100, selecting
from tests.package.test_numerics import ROOT, check

HALF = torch.float16


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("selecting")
    write_package(selecting(), folder / "made_to_select", target=H100, db=str(folder / "none.sqlite"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("made_to_select")


def test_numerics_in_the_interpreter(made, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(dump_spec(selecting()))
    folder = os.path.dirname(made.__file__)
    child = subprocess.run(
        [sys.executable, "-m", "tests.package.interpreted_selecting", folder, str(path)],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    report = json.loads(child.stdout)
    assert len(report) == 7
    check(report, "float16")


@pytest.mark.parametrize("kind", ["groups", "latents"])
def test_bounds_are_what_is_visible(made, kind):
    module = importlib.import_module(f"made_to_select.{kind}")
    given = {
        "offsets": torch.tensor([2, -3], dtype=torch.int32),
        "key_range": torch.tensor([[1, 9], [-2, 90]], dtype=torch.int32),
    }
    for placed in ({}, given):
        expected = reference.key_bounds(selecting().kind(kind), 60, 50, 2, **placed)
        first, end = module._key_bounds(torch.empty(2, 1, 60, 1), 50, placed.get("offsets"), placed.get("key_range"))
        seen, wanted = ((j >= a) & (j < b) for j, a, b in (spread(first, end), spread(*expected)))
        assert torch.equal(seen, wanted)
        assert bool((first >= 0).all()) and bool((end <= 50).all()) and first.dtype == torch.int32


def spread(first, end):
    return torch.arange(50), first[..., None], end[..., None]


class Recorder:
    """In the place of a kernel."""

    def __init__(self):
        self.launches = []

    def __getitem__(self, grid):
        return lambda **given: self.launches.append((grid, given))


TABLES = {"quantise": "_NARROW", "indexer": "_SCORE", "select": "_KEEP", "gathered": "_ATTEND"}


@pytest.fixture
def launches(made, monkeypatch):
    """Calls the op of a kind as on Hopper, or as elsewhere: by kernel, the config taken and each launch."""
    common = importlib.import_module("made_to_select._common")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # takes CPU tensors
    monkeypatch.setattr(common, "ticket", lambda q: "ticket")
    monkeypatch.setattr(importlib.import_module("made_to_select._selecting"), "processors", lambda device: 132)

    def run(kind, hopper, **given):
        monkeypatch.setattr(common, "is_hopper", lambda device: hopper)
        module = importlib.import_module(f"made_to_select.{kind}")
        taken = {}
        for kernel, table in TABLES.items():
            configs = getattr(module, table, None)
            if configs is None:
                continue
            single = kernel == "quantise"
            recorders = [Recorder() for _ in ([configs] if single else configs)]
            replaced = [c._replace(kernel=r) for c, r in zip([configs] if single else configs, recorders, strict=True)]
            monkeypatch.setattr(module, table, replaced[0] if single else replaced)
            taken[kernel] = list(zip(replaced, recorders, strict=True))
        getattr(module, kind)(**given)
        return {k: [(c, *one) for c, r in rows for one in r.launches] for k, rows in taken.items()}

    return run


def tensors(kind, seq_q=40, seq_k=640):
    given = make_indices(selecting().kind(kind), 2, seq_q, seq_k, device="cpu")
    del given["indices"]
    return given | make_index(selecting().kind(kind), 2, seq_q, seq_k, device="cpu")


@pytest.mark.parametrize("hopper", [True, False])
@pytest.mark.parametrize("kind", ["groups", "latents"])
def test_kernels_are_given_all_their_parameters(launches, kind, hopper):
    taken = launches(kind, hopper, **tensors(kind))
    schedules = set()
    for plan in launched_plans(selecting().kind(kind), H100):
        if plan.kernel == "forward":
            continue
        rows = config_table(plan, H100, "none.sqlite") if plan.kernel != "quantise" else ()
        assert len(taken[plan.kernel]) == (2 if plan.kernel == "quantise" else 1)
        for config, grid, given in taken[plan.kernel]:
            gluon = getattr(config, "hopper", False)
            names = {frozenset(render(plan, row.config).parameters) for row in rows if is_gluon(row.config) == gluon}
            if rows:
                assert frozenset(given.keys() - config.options.keys()) in names
            assert grid[0] >= 1 and all(value is not None or name in OPTIONAL for name, value in given.items())
            schedules.add((plan.kernel, gluon))
    assert {kernel for kernel, gluon in schedules if gluon} == (HOPPER[kind] if hopper else set())


OPTIONAL = ("offsets_ptr", "key_range_ptr", "topk_length_ptr")
HOPPER = {"groups": {"indexer", "select"}, "latents": {"indexer", "select", "gathered"}}


def test_boxes_are_those_of_the_kernels(launches):
    taken = launches("latents", True, **tensors("latents"))
    config, grid, given = taken["gathered"][0]
    assert grid == (min(2 * 40, 132),) and given["ticket_ptr"] == "ticket"
    assert given["q_desc"].block_shape == given["out_desc"].block_shape == [1, 64, 1, 128]
    assert given["q_rope_desc"].block_shape == [1, 64, 1, 64]
    config, grid, given = taken["indexer"][0]
    assert given["q_desc"].block_shape[2:] == [8, 32] and given["k_desc"].block_shape[2] == 32
    assert given["k_desc"].base.dtype == torch.float8_e4m3fn and given["k_scale_stride"] == 640
    config, grid, given = taken["select"][0]
    assert given["scratch_ptr"].numel() == grid[0] * config.candidates and grid == (80,)


def test_tensors_that_the_copy_engine_cannot_read_take_pointers(launches):
    given = tensors("latents")
    wide = torch.zeros(*given["q"].shape[:3], 321, dtype=HALF)[..., :320]
    for q, gluon in ((given["q"], True), (wide, False)):
        ((config, _, _),) = launches("latents", True, **{**given, "q": q})["gathered"]
        assert config.hopper == gluon


def misfit(**changes):
    return {**tensors("latents", 8, 40), **changes}


REFUSED = {
    "values": (
        {"v": torch.zeros(1)},
        ValueError,
        "v is given; a key's first 256 columns are its value, None is needed",
    ),
    "keys": (
        {"k": torch.zeros(2, 1, 40, 64, dtype=HALF)},
        ValueError,
        r"k has shape \(2, 1, 40, 64\); \(2, 1, 40, 320\)",
    ),
    "no index": ({"index_k": None}, ValueError, "index_k is needed to select 16 of 40 keys; indices would do too"),
    "index heads": (
        {"index_q": torch.zeros(2, 4, 8, 32)},
        ValueError,
        r"index_q has shape \(2, 4, 8, 32\); \(batch, 8, seq_q, 32\) is needed",
    ),
    "index keys": (
        {"index_k": torch.zeros(2, 39, 32)},
        ValueError,
        r"index_q and index_k are of batch, queries and keys \(2, 8, 39\); \(2, 8, 40\) is needed",
    ),
    "index dtype": ({"index_weights": torch.zeros(2, 8, 8).int()}, TypeError, "index_weights is torch.int32; bfloat16"),
    "index stride": (
        {"index_k": torch.zeros(2, 32, 40).transpose(1, 2)},
        ValueError,
        "index_k has stride 40 in its last dimension; 1 is needed",
    ),
    "lists": (
        {"indices": torch.zeros(2, 7, 5, dtype=torch.int32)},
        ValueError,
        r"indices has shape \(2, 7, 5\); \(2, 8, top_k\) or \(2, 1, 8, top_k\) is needed",
    ),
    "lists dtype": ({"indices": torch.zeros(2, 8, 5)}, TypeError, "indices is torch.float32; torch.int32 is needed"),
    "offsets": ({"offsets": torch.zeros(3).int()}, ValueError, r"offsets has shape \(3,\); \(2,\) is needed"),
    "sink": ({"sink": torch.zeros(16)}, TypeError, "unexpected keyword argument 'sink'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(made, case, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    changes, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        made.latents(**misfit(**changes))


def test_gradients_and_cpu_tensors_are_refused(made, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    given = misfit()
    given["index_q"] = given["index_q"].detach().requires_grad_()
    with pytest.raises(RuntimeError, match="index_q requires a gradient and there is no backward pass"):
        made.latents(**given)
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match="latents: q is on the CPU; a GPU is needed"):
        made.latents(**misfit())


def test_nothing_to_attend(made, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for batch, seq_q, seq_k in ((0, 8, 40), (1, 0, 40), (1, 8, 0)):
        q = torch.zeros(batch, 16, seq_q, 320, dtype=HALF)
        k = torch.zeros(batch, 1, seq_k, 320, dtype=HALF)
        index = make_index(selecting().kind("latents"), batch, seq_q, seq_k, device="cpu")
        out, lse = made.latents(q, k, **index, return_lse=True)
        assert out.shape == (batch, 16, seq_q, 256) and not out.any() and bool((lse == -torch.inf).all())


def test_the_readme_says_how_to_select():
    text = package_files(selecting(), "p", target=H100)["README.md"]
    for part in (
        "out = p.latents(q, k, index_q=index_q, index_k=index_k, index_weights=index_weights)",
        "out = p.lists(q, k, v, indices=indices)",
        "the sum over heads of weight * relu(q . k), in 8 bits",
        "`groups: indexer`",
        "`groups_whole`",
    ):
        assert part in " ".join(text.split()), part


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["selecting", "deepseek-v3.2"])
def test_packages_on_the_gpu(name, tmp_path, monkeypatch):
    spec = selecting() if name == "selecting" else load_spec(EXAMPLES / f"{name}.yaml")
    package = f"made_{name.replace('-', '_').replace('.', '_')}"
    write_package(spec, tmp_path / package, target=detect(), db=str(tmp_path / "none.sqlite"))
    monkeypatch.syspath_prepend(str(tmp_path))
    made = importlib.import_module(package)
    for kind in (kind for kind in spec.kinds if kind.select is not None and kind.select.indexer is not None):
        top_k, op = kind.select.top_k, getattr(made, kind.name)
        select = importlib.import_module(f"{package}.{kind.name}").select
        for seq_q, seq_k in ((1, top_k + 700), (333, 2 * top_k + 77), (200, top_k)):
            inputs, listed = make_indices(kind, 2, seq_q, seq_k, device="cuda", seed=4), {}
            del inputs["indices"]
            index = make_index(kind, 2, seq_q, seq_k, device="cuda")
            if seq_k > top_k:
                listed["indices"] = select(**index, workspace_bytes=2**20)
                assert torch.equal(listed["indices"], Selector(kind)(**index))
            out, lse = op(**inputs, **index, return_lse=True)
            exact, exact_lse = reference.attention(kind, **inputs, **listed)
            assert float((out.double() - exact).norm() / exact.norm()) <= TOLERANCE[kind.dtype]
            unseen = torch.isneginf(exact_lse)
            assert torch.equal(torch.isneginf(lse), unseen)
            assert float((lse.double() - exact_lse).masked_fill(unseen, 0.0).abs().max()) <= 1e-3

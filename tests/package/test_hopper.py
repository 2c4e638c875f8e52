"""A package with kernels for Hopper: which kernel a call takes, and what it is given, without such a GPU."""

import importlib
from types import SimpleNamespace

import pytest
import torch

from attngen.package import package_files, write_package
from attngen.package.configs import config_table
from attngen.plan import plan_forward
from attngen.plan.boxes import is_gluon
from attngen.source import render
from attngen.spec import parse_spec
from tests.package.specs import H100

SPEC = """
name: made-for-hopper
heads: {query: 8, kv: 2}
head_dim: {qk: 96, v: 64}
dtype: bfloat16
causal: true
kinds:
  dense: {}
  local: {window: {total: 128}}
  biased: {score: "s * gain + bias[h, i - j]", alibi: true, prefix: argument, sink: learned}
pattern: [dense, local, biased]
layers: 3
"""


class Recorder:
    """In the place of a kernel."""

    def __init__(self):
        self.grid, self.given = None, None

    def __getitem__(self, grid):
        def launch(**given):
            self.grid, self.given = grid, given

        return launch


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hopper")
    write_package(parse_spec(SPEC), folder / "made_for_hopper", target=H100, db=str(folder / "none.sqlite"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("made_for_hopper")


@pytest.fixture
def call(made, monkeypatch):
    """Calls the op of a kind; the config it took, and what its kernel was given."""
    common = importlib.import_module("made_for_hopper._common")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # takes CPU tensors
    monkeypatch.setattr(common, "is_hopper", lambda device: True)
    monkeypatch.setattr(common, "ticket", lambda q: "ticket")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(multi_processor_count=132))

    def run(kind, hopper=True, **changes):
        monkeypatch.setattr(common, "is_hopper", lambda device: hopper)
        module = importlib.import_module(f"made_for_hopper.{kind}")
        recorder = Recorder()
        configs = module._CONFIGS
        monkeypatch.setattr(module, "_CONFIGS", [config._replace(kernel=recorder) for config in configs])
        getattr(module, kind)(**{**inputs(kind), **changes})
        monkeypatch.setattr(module, "_CONFIGS", configs)
        return recorder

    return run


def zeros(heads, dim, seq=640):
    return torch.zeros(2, heads, seq, dim, dtype=torch.bfloat16)


def inputs(kind):
    named = {"gain": 2.0, "bias": torch.zeros(8, 64), "sink": torch.zeros(8), "alibi_slopes": torch.zeros(8)}
    named["prefix"] = torch.zeros(2, dtype=torch.int32)
    return {"q": zeros(8, 96), "k": zeros(2, 96), "v": zeros(2, 64), **(named if kind == "biased" else {})}


def parameters(kind, hopper):
    plan = plan_forward(parse_spec(SPEC).kind(kind))
    rows = config_table(plan, H100, "none.sqlite")
    row = next(row for row in rows if is_gluon(row.config) == hopper)
    return set(render(plan, row.config).parameters), row.config


@pytest.mark.parametrize("kind", ["dense", "biased"])
def test_a_kernel_is_given_all_its_parameters(call, kind):
    for hopper in (True, False):
        names, config = parameters(kind, hopper)
        taken = call(kind, hopper)
        assert names <= set(taken.given)
        assert set(taken.given) - names == {"num_warps"} | (
            {"maxnreg"} if hopper else {"num_stages", "BLOCK_M", "BLOCK_N", "HEADS_TOGETHER"}
        )
        tiles = -(-640 // config["BLOCK_M"]) * 8 * 2
        assert taken.grid == (min(tiles, 132) if hopper else tiles,)
        if hopper:
            assert taken.given["tile_count"] == tiles > 0 and taken.given["ticket_ptr"] == "ticket"
            assert taken.given["q_desc_1"].block_shape == [1, 1, 64, 32]
            assert taken.given["v_desc_0"].block_shape == [1, 1, config["BLOCK_N"], 64]
            assert taken.given["k_desc_0"].layout.swizzle_byte_width == 128


def shifted(tensor):
    return torch.zeros(tensor.numel() + 1, dtype=tensor.dtype)[1:].view(tensor.shape)


def test_a_window_has_all_heads_of_a_group_in_a_program(call):
    names, config = parameters("local", True)
    taken = call("local")
    assert config["schedule"] == "hopper_window" and names == set(taken.given) - {"num_warps", "maxnreg"}
    assert taken.grid == (640 // 64 * 2 * 2,)
    assert taken.given["out_desc_0"].block_shape == [1, 1, 64, 64]
    assert taken.given["k_desc_0"].block_shape == [1, 1, config["BLOCK_N"], 64]


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_tensors_that_cannot_be_described_take_pointers(call, name):
    assert "q_desc_0" in call("dense").given
    assert "q_ptr" in call("dense", **{name: shifted(inputs("dense")[name])}).given


def test_the_readme_says_where_the_kernels_run():
    files = package_files(parse_spec(SPEC), "p", target=H100)
    assert "Hopper" in files["README.md"] and "portable" in files["README.md"]

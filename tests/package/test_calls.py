"""Calls that a generated op refuses, each with one line that says what is needed."""

import importlib

import pytest
import torch

from attngen.package import write_package
from tests.package.specs import H100, every_argument, small


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The small GPT-OSS package, imported here: its checks need neither a GPU nor the interpreter."""
    folder = tmp_path_factory.mktemp("calls")
    write_package(small("gpt-oss-20b"), folder / "made_for_calls", target=H100, db=str(folder / "none.sqlite"))
    write_package(every_argument(), folder / "made_for_names", target=H100, db=str(folder / "none.sqlite"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("made_for_calls"), importlib.import_module("made_for_names")


def tensors(**changes):
    values = {
        "q": torch.zeros(1, 4, 8, 64, dtype=torch.float16),
        "k": torch.zeros(1, 2, 8, 64, dtype=torch.float16),
        "v": torch.zeros(1, 2, 8, 64, dtype=torch.float16),
        "sink": torch.zeros(4),
    }
    return {**values, **changes}


HALF = torch.float16
REFUSED = {
    "dtype": ({"q": torch.zeros(1, 4, 8, 64)}, TypeError, "local: q is torch.float32; torch.float16 is needed"),
    "dimensions": (
        {"k": torch.zeros(2, 8, 64, dtype=HALF)},
        ValueError,
        r"local: k has shape \(2, 8, 64\); \(batch, heads, sequence, dim\) is needed",
    ),
    "heads": (
        {"q": torch.zeros(1, 6, 8, 64, dtype=HALF)},
        ValueError,
        r"local: q has shape \(1, 6, 8, 64\); \(1, 4, 8, 64\) is needed",
    ),
    "keys": (
        {"v": torch.zeros(1, 2, 9, 64, dtype=HALF)},
        ValueError,
        r"local: v has shape \(1, 2, 9, 64\); \(1, 2, 8, 64\) is needed",
    ),
    "stride": (
        {"q": torch.zeros(1, 4, 64, 8, dtype=HALF).transpose(2, 3)},
        ValueError,
        "local: q has stride 8 in its last dimension; 1 is needed",
    ),
    "device": (
        {"k": torch.zeros(1, 2, 8, 64, dtype=HALF, device="meta")},
        ValueError,
        "local: k is on meta and q on cpu; one device is needed",
    ),
    "type": ({"v": [1]}, TypeError, "local: v is list; a tensor is needed"),
    "gradient": (
        {"q": torch.zeros(1, 4, 8, 64, dtype=HALF, requires_grad=True)},
        RuntimeError,
        r"local: q requires a gradient and there is no backward pass; use torch.no_grad\(\)",
    ),
    "cpu": ({}, ValueError, "local: q is on the CPU; a GPU is needed, or TRITON_INTERPRET=1 in the environment"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(made, case, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    changes, error, message = REFUSED[case]
    with pytest.raises(error, match=f"^{message}$"):
        made[0].local(**tensors(**changes))


LATER = {
    "sink shape": ({"sink": torch.zeros(2)}, ValueError, r"local: sink has shape \(2,\); \(4,\) is needed"),
    "sink dtype": ({"sink": torch.zeros(4, dtype=torch.int32)}, TypeError, "sink is torch.int32; float32 is needed"),
    "sink none": ({"sink": None}, TypeError, "local: sink is NoneType; a tensor is needed"),
    "offsets": ({"offsets": torch.zeros(1)}, TypeError, "local: offsets is torch.float32; int32 is needed"),
    "key_range": (
        {"key_range": torch.zeros(2, dtype=torch.int32)},
        ValueError,
        r"local: key_range has shape \(2,\); \(1, 2\) is needed",
    ),
}


@pytest.mark.parametrize("case", LATER)
def test_keywords_refused(made, case, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    changes, error, message = LATER[case]
    with pytest.raises(error, match=message):
        made[0].local(**tensors(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reach": "far"}, "class_: reach is str; a number is needed"),
        ({"reach": True}, "class_: reach is bool; a number is needed"),
        ({"table": torch.zeros(3)}, r"class_: table has shape \(3,\); 2 dimensions, none of them 0, are needed"),
        ({"table": torch.zeros(1, 5)}, r"class_: table has shape \(1, 5\); its dimension 1 needs 1 or 8"),
    ],
)
def test_arguments_of_expressions_refused(made, changes, message, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    values = {
        "q": torch.zeros(1, 4, 8, 80, dtype=HALF),
        "k": torch.zeros(1, 2, 8, 80, dtype=HALF),
        "v": torch.zeros(1, 2, 8, 48, dtype=HALF),
        "sink": torch.zeros(4),
        "alibi_slopes": torch.zeros(4),
        "prefix": torch.zeros(1, dtype=torch.int32),
        "reach": 3,
        "table": torch.zeros(1, 8),
    }
    with pytest.raises((TypeError, ValueError), match=message):
        made[1].class_(**{**values, **changes})


def test_layers(made):
    with pytest.raises(IndexError, match="layer 24; gpt-oss-20b has layers 0 to 23"):
        made[0].attention(None, None, None, layer=24)
    with pytest.raises(ValueError, match="layer 2 of every-argument is not attention"):
        made[1].attention(None, None, None, layer=2)


@pytest.mark.parametrize(("batch", "seq_q", "seq_k"), [(0, 8, 8), (1, 0, 8), (1, 8, 0)])
def test_nothing_to_attend(made, batch, seq_q, seq_k, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    q = torch.zeros(batch, seq_q, 4, 64, dtype=HALF).transpose(1, 2)
    k = torch.zeros(batch, 2, seq_k, 64, dtype=HALF)
    out, lse = made[0].local(q, k, k, sink=torch.zeros(4), return_lse=True)
    assert out.shape == q.shape
    assert not out.any()
    assert (lse == -torch.inf).all()

"""Weights far above the maxima that a kernel saw first: rows that outgrow them are visited once more."""

import pytest
import torch

from attngen import reference
from attngen.inputs import make_inputs
from attngen.op import Launcher
from attngen.plan import plan_forward
from attngen.spec.model import Window
from attngen.verify.bounds import element_bound, lse_bound
from tests.op.test_hopper_gpu import HOPPER, kind, pytestmark  # noqa: F401

KINDS = {
    "causal": (kind(128, causal=True), {}),
    "192 rows": (kind(64), {"BLOCK_M": 192, "PING_PONG": True}),
    "192 rows, small tiles": (kind(128), {"BLOCK_M": 192, "BLOCK_N": 64, "num_stages": 3}),
    "float16": (kind(128, causal=True, dtype="float16"), {}),
    "wide": (kind(256, (4, 2), causal=True), {"BLOCK_N": 64}),
    "window, sink": (kind(64, (8, 2), causal=True, window=Window(700, 0), sink=True), {}),
    "two widths": (kind(192, v_dim=128, causal=True), {}),
    "FP8": (kind(128, causal=True, dtype="float8_e4m3"), {}),
    "FP8, a tile of keys after the other": (
        kind(128, causal=True, dtype="float8_e4m3"),
        {"BLOCK_N": 256, "PING_PONG": True},
    ),
    "FP8, wide": (kind(256, (4, 2), dtype="float8_e4m3"), {"BLOCK_N": 64}),
}
GROWN = {  # keys, and how many times as large they are
    "the first key": ([(0, 1)], 6),
    "the first key, beyond float32": ([(0, 1)], 400),
    "keys here and there": ([(700, 702), (300, 301)], 30),
    "many keys": ([(0, 600)], 3),
    "all keys": ([(0, 1500)], 20),
    "no key: all scores are 0": ([(0, 1500)], 0),
}


def inputs_of(kind_, seq_q, seq_k, places, factor):
    inputs = make_inputs(kind_, 2, seq_q, seq_k, device="cuda")
    keys = inputs["k"].float()
    for first, end in places:
        keys[:, :, first:end] *= factor
    inputs["k"] = (keys.clamp(-448, 448) if kind_.quantised else keys).to(inputs["k"].dtype)
    return inputs


def check(kind_, inputs, out, lse):
    exact, exact_lse = reference.attention(kind_, **inputs)
    allowed_lse = lse_bound(kind_, inputs, exact_lse)
    assert torch.isfinite(out).all() and torch.equal(torch.isneginf(lse), torch.isneginf(exact_lse))
    assert float((lse.double() - exact_lse).nan_to_num().abs().max()) <= allowed_lse
    assert bool(((out.double() - exact).abs() <= element_bound(kind_, inputs, exact, allowed_lse)).all())


@pytest.mark.parametrize("name", KINDS)
def test_numerics(name):
    kind_, changes = KINDS[name]
    launcher = Launcher(plan_forward(kind_), HOPPER.replace(**changes))
    for places, factor in GROWN.values():
        inputs = inputs_of(kind_, 1111, 1500, places, factor)
        out, lse = launcher(**inputs)
        check(kind_, inputs, out, lse)
        for _ in range(3):
            for made, expected in zip(launcher(**inputs), (out, lse), strict=True):
                assert torch.equal(made, expected)


def test_what_is_no_number_ends():
    """A row that is no number at all is visited twice, and no other row is touched."""
    kind_ = kind(128, (40, 40), causal=True)
    launcher = Launcher(plan_forward(kind_), HOPPER)
    inputs = make_inputs(kind_, 2, 1500, 1500, device="cuda")
    expected, _ = launcher(**inputs)
    inputs["q"][1, 3, 700] = float("nan")
    out, _ = launcher(**inputs)
    assert bool(out[1, 3, 700].isnan().all())
    out[1, 3, 700] = expected[1, 3, 700]
    assert torch.equal(out, expected)


def test_many_tiles_of_every_program():
    kind_ = kind(64, (16, 16), causal=True)
    launcher = Launcher(plan_forward(kind_), HOPPER.replace(BLOCK_M=192))
    inputs = inputs_of(kind_, 3000, 3000, [(5, 9)], 60)
    check(kind_, inputs, *launcher(**inputs))
    counter = next(iter(launcher.tickets._counters.values()))
    assert not counter.any()

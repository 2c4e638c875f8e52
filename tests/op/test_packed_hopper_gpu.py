"""Packed documents in the Hopper schedules: boundaries anywhere in a tile, empty documents, and NaN after the last."""

import pytest
import torch

from attngen.op import Launcher
from attngen.plan import plan_forward
from attngen.plan.backward import plan_backward
from attngen.plan.boxes import is_gluon
from attngen.plan.space import default_config, feasible
from attngen.spec.model import Window
from tests.op.cases import Case, inputs_of, kind_of
from tests.op.gradient_cases import run
from tests.op.test_gpu import check
from tests.op.test_hopper_gpu import HOPPER
from tests.op.test_hopper_gradients_gpu import H100

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0), reason="sm_90"),
]

UNEVEN = ((0, 1, 300, 300, 321, 1024, 1216), (0, 70, 71, 400, 400, 1100, 1200))
EQUAL = ((0, 384, 768, 1152), (0, 384, 768, 1152))
LAST = ((0, 5, 905), (0, 7, 1207))  # and many tokens after the last document
TOKENS = (1280, 1340)
HEADS_PACKED, ROWS_192 = {"PACK_HEADS": 2}, {"BLOCK_M": 192}


def kind(dim, heads=(4, 2), v_dim=None, **fields):
    return kind_of(heads, (dim, v_dim or dim), **{"dtype": "bfloat16", **fields}, documents=True)


CASES = {  # the kind, changes of the forward config, and of the default configs of backward_kv and backward_q
    "64, causal": (kind(64, causal=True), ROWS_192, {}, {}),
    "64, full, sink": (kind(64, sink=True), {}, {}, {}),
    "64, ahead, 128 queries": (kind(64, causal=True), {}, {"BLOCK_M": 128, "num_stages": 2}, {"BLOCK_M": 128}),
    "64, in order": (kind(64, causal=True), HEADS_PACKED, {"AHEAD": False}, {"AHEAD": False}),
    "128, causal": (kind(128, causal=True), {"PING_PONG": True}, {}, {}),
    "128, full": (kind(128, (4, 4)), {}, {}, {"AHEAD": True, "BLOCK_N": 64}),
    "values narrower": (kind(128, v_dim=64, causal=True), {}, {}, {}),
    "a padded head": (kind(24, causal=True), {}, {}, {}),
    "window": (kind(64, window=Window(64, 64)), {}, {}, {}),
    "window, first keys": (kind(64, causal=True, window=Window(99, 0), always_first=4), HEADS_PACKED, {}, {}),
    "window, softcap, ALiBi": (kind(128, causal=True, window=Window(199, 0), softcap=20.0, alibi=True), {}, {}, {}),
    "score": (kind(128, score="s * gain[h] + tanh(s) * u[h, j]", softcap=20.0), {}, {}, {}),
    "prefix": (kind(128, causal=True, prefix="argument"), {}, {}, {}),
    "256": (kind(256, causal=True), {"BLOCK_N": 64}, {}, {}),
}


def case_of(kind_, ends, **more) -> Case:
    config = HOPPER.replace(**more)
    assert feasible(plan_forward(kind_), config, H100) is None, feasible(plan_forward(kind_), config, H100)
    batch = len(ends[0]) - 2  # of so many, make_inputs makes a document more
    return Case(kind_, config, *(tokens // batch for tokens in TOKENS), batch=batch, ends=ends)


@pytest.mark.parametrize("ends", [UNEVEN, EQUAL, LAST], ids=["uneven", "equal", "last"])
@pytest.mark.parametrize("name", CASES)
def test_forward(name, ends):
    kind_, changes, _, _ = CASES[name]
    case = case_of(kind_, ends, **changes)
    inputs = {name: x.cuda() if isinstance(x, torch.Tensor) else x for name, x in inputs_of(case).items()}
    launcher = Launcher(plan_forward(kind_), case.config)
    out, lse = launcher(**inputs)
    exact = {name: torch.nan_to_num(x) if name in ("q", "k", "v") else x for name, x in inputs.items()}
    check(kind_, out, lse, exact)
    for made, again in zip((out, lse), launcher(**inputs), strict=True):
        assert torch.equal(made, again)


@pytest.mark.parametrize("ends", [UNEVEN, LAST], ids=["uneven", "last"])
@pytest.mark.parametrize("name", CASES)
def test_gradients(name, ends):
    kind_, changes, of_keys, of_queries = CASES[name]
    plans, configs = plan_backward(kind_), {}
    for plan, changed in ((plans.kv, of_keys), (plans.q, of_queries)):
        config = configs[plan.kernel] = default_config(plan, H100).replace(**changed)
        assert is_gluon(config) and feasible(plan, config, H100) is None, (config, feasible(plan, config, H100))
    given = {"wanted": ("q", "k", "v"), "twice": True, "device": "cuda", "configs": configs}
    forward = {**changes, "BLOCK_M": 128}  # which the kernel of rows has too
    found = run(case_of(kind_, ends, **forward), of_lse=True, **given)
    assert all(share <= 1.0 for share in found.of.values()), found.of
    assert found.repeated

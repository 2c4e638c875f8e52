"""The sum of branches: in Triton's interpreter against float64, compiled for GPUs that are not here, and refusals."""

from dataclasses import replace

import pytest
import torch

from attngen.config import Config
from attngen.errors import CallError, NotGeneratedError
from attngen.inputs_sparse import make_gated
from attngen.op.gated import GatedLauncher
from attngen.plan.gated import plan_gated
from attngen.plan.space import default_config, feasible_anywhere
from attngen.source import compile_source
from attngen.spec.model import Compress, HeadDim, Heads, Kind
from attngen.target import get_target
from attngen.verify.answers import exact_gated

SMALL = Config(schedule="portable", BLOCK_M=8, num_warps=4, num_stages=1)


def kind_of(branches=3, v=24, dtype="float16", heads=3) -> Kind:
    one = Kind("branch", Heads(heads, 1), HeadDim(16, v), dtype=dtype, causal=True)
    names = ("near", "far", "coarse", "other")[:branches]
    made = (replace(one, name=name, compress=Compress(8, 4) if name == "coarse" else None) for name in names)
    return replace(one, name="sum", branches=tuple(made))


CASES = {
    "three branches": (kind_of(), (2, 5), {}),
    "two branches, whole width": (kind_of(2, v=32), (1, 9), {}),
    "four, in two chunks": (kind_of(4, v=80), (1, 3), {}),
    "float32": (kind_of(dtype="float32"), (1, 4), {}),
    "heads before queries": (kind_of(), (2, 5), {"contiguous": True}),
    "gates of other strides": (kind_of(), (2, 5), {"gates": True}),
    "no queries": (kind_of(), (2, 0), {}),
}


def summed(case) -> float:
    """The largest share of what rounding explains."""
    kind, sizes, changes = case
    inputs = make_gated(kind, *sizes, device="cpu")
    if changes.get("contiguous"):
        inputs["results"] = [result.contiguous() for result in inputs["results"]]
    if changes.get("gates"):
        inputs["gates"] = inputs["gates"].transpose(1, 2).contiguous().transpose(1, 2)
    launcher = GatedLauncher(plan_gated(kind), SMALL)
    out = launcher(**inputs)
    assert out.shape == inputs["results"][0].shape and out.stride() == torch.empty_like(inputs["results"][0]).stride()
    assert torch.equal(out, launcher(**inputs))
    right, allowed = exact_gated(inputs)
    return float(((out.double() - right).abs() / allowed).max()) if out.numel() else 0.0


@pytest.mark.parametrize("name", CASES)
def test_sums(interpreter, name):
    assert interpreter(summed, CASES[name]) <= 1.0


@pytest.mark.parametrize("target", ["h100", "a100", "b200", "mi300x"])
def test_compiled_defaults(target):
    plan = plan_gated(kind_of(v=128, dtype="bfloat16", heads=64))
    resources = compile_source(plan, default_config(plan, get_target(target)), get_target(target))
    assert resources.spills == 0


def test_configs():
    plan = plan_gated(kind_of(v=128, dtype="bfloat16"))
    assert {config["BLOCK_M"] for config in feasible_anywhere(plan, get_target("h100"))} == {8, 16, 32, 64}
    with pytest.raises(NotGeneratedError, match="no branches"):
        plan_gated(plan.kind.branches[0])


WRONG = [
    (lambda given: given["results"].pop(), "there are 2 results; kind 'sum' has 3 branches"),
    (lambda given: given["results"].__setitem__(1, given["results"][1][:, :, :4]), "the result of 'far' has shape"),
    (lambda given: given["results"].__setitem__(2, given["results"][2].contiguous()), "'coarse' has .* strides"),
    (lambda given: given.__setitem__("gates", given["gates"][..., :2]), "gates is .*2, 3, 5, 2.*2, 3, 5, 3"),
    (lambda given: given.__setitem__("gates", given["gates"].half()), "of float32"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_calls(change, message):
    given = make_gated(kind_of(), 2, 5, device="cpu")
    change(given)
    with pytest.raises(CallError, match=message):
        GatedLauncher(plan_gated(kind_of()), SMALL)(**given)

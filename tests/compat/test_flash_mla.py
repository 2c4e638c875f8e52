"""FlashMLA's sparse prefill by our kernel, in Triton's interpreter, against a float64 reference; and wrong calls."""

import math
from dataclasses import dataclass

import pytest
import torch

from attngen.compat.flash_mla import flash_mla_sparse_fwd
from attngen.errors import CallError
from attngen.op.kernels import Launchers
from attngen.plan.boxes import is_gluon
from attngen.plan.gathered import plan_gathered
from attngen.spec.model import HeadDim, Heads, Kind, Latent
from tests.op.gathered_cases import (
    GatheredCase,
    gathered_bounds,
    gathered_reference,
    make_gathered_inputs,
)

SCALE = 0.07


@dataclass(frozen=True)
class SparseCase:
    s_q: int = 3
    heads: int = 4
    s_kv: int = 37
    topk: int = 21
    width: int = 576
    sinks: tuple[float, ...] | None = None
    lengths: tuple[int, ...] | None = None
    bad: float = 0.3


def kind_of(case):
    sizes = HeadDim(case.width, 512), Latent(512, case.width - 512)
    fields = {"dtype": "float16", "scale": SCALE, "sink": case.sinks is not None}
    return Kind("kind", Heads(case.heads, 1), sizes[0], latent=sizes[1], **fields)


def errors(case):
    """Of out, max_logits and lse, errors as parts of their bounds; 1 is as far as rounding may take them."""
    kind = kind_of(case)
    sizes = {"seq_q": case.s_q, "seq_k": case.s_kv, "top_k": case.topk, "lengths": case.lengths, "bad": case.bad}
    inputs = make_gathered_inputs(GatheredCase(kind, None, batch=1, **sizes))
    if case.sinks is not None:
        inputs["sink"] = torch.tensor(case.sinks)
    out, max_logits, lse = flash_mla_sparse_fwd(
        inputs["q"][0].transpose(0, 1),
        inputs["k"][0].transpose(0, 1),
        inputs["indices"][0].unsqueeze(1),
        SCALE,
        attn_sink=inputs.get("sink"),
        topk_length=inputs["topk_length"][0] if case.lengths else None,
    )
    exact = gathered_reference(kind, **inputs)
    out_bound, row_bound = gathered_bounds(kind, inputs, exact)
    exact_out, exact_lse, exact_max = (values[0].transpose(0, 1) for values in exact)
    assert out.shape == (case.s_q, case.heads, 512) and out.dtype == torch.float16
    assert max_logits.shape == lse.shape == (case.s_q, case.heads) and lse.is_contiguous()
    unseen = exact_lse == -math.inf
    assert torch.equal(lse == math.inf, unseen) and torch.equal(max_logits == -math.inf, unseen)
    assert not out[unseen].any()
    out_errors = (out - exact_out).abs() / out_bound[0].transpose(0, 1).clamp_min(1e-30)
    rows = [(a - b).masked_fill(unseen, 0.0).abs() / row_bound for a, b in ((max_logits, exact_max), (lse, exact_lse))]
    return float(max(values.max() for values in (out_errors, *rows)))


CASES = {
    "four heads": SparseCase(),
    "width 512": SparseCase(width=512),
    "18 heads": SparseCase(heads=18, s_q=1),
    "more entries than keys": SparseCase(s_kv=5, topk=40),
    "no valid entry": SparseCase(bad=1.1),
    "sinks": SparseCase(sinks=(0.5, -math.inf, math.inf, -3.0)),
    "sinks, no valid entry": SparseCase(sinks=(0.5, -math.inf, math.inf, -3.0), bad=1.1),
    "lengths": SparseCase(lengths=(0, 7, 21)),
    "lengths and sinks": SparseCase(lengths=(1, 0, 30), sinks=(0.0, 1.0, 2.0, 3.0)),
}


@pytest.mark.parametrize("name", CASES)
def test_results(interpreter, name):
    assert interpreter(errors, CASES[name]) <= 1.0


def test_asynchronous_copies_where_tensors_allow():
    kind = Kind("kind", Heads(128, 1), HeadDim(576, 512), latent=Latent(512, 64))
    launchers = Launchers(plan_gathered(kind))
    assert is_gluon(launchers.at(1, 4096, 4096).config)
    assert not is_gluon(launchers.at(1, 4096, 4096, gluon=False).config)
    assert launchers.at(1, 4096, 4096) is launchers.at(1, 4095, 4096)


def zeros(*shape, dtype=torch.bfloat16):
    return torch.zeros(shape, dtype=dtype)


WRONG = {
    "d_v": ({"d_v": 256}, "d_v is 256; 512 is needed"),
    "batched queries": ({"q": zeros(1, 3, 4, 576)}, r"q is \(1, 3, 4, 576\)"),
    "narrow queries": ({"q": zeros(3, 4, 256)}, "512 and more"),
    "float32": ({"q": zeros(3, 4, 576, dtype=torch.float32)}, "bfloat16 or float16 is needed"),
    "two latents": ({"kv": zeros(9, 2, 576)}, r"\(s_kv, 1, 576\) of torch.bfloat16 is needed"),
    "kv of another dtype": ({"kv": zeros(9, 1, 576, dtype=torch.float16)}, "of torch.bfloat16 is needed"),
    "indices of 64 bits": ({"indices": zeros(3, 1, 5, dtype=torch.int64)}, "of torch.int32 is needed"),
    "indices of other queries": ({"indices": zeros(2, 1, 5, dtype=torch.int32)}, r"\(3, 1, topk\)"),
    "sinks": ({"attn_sink": zeros(5, dtype=torch.float32)}, r"\(4,\) of torch.float32 is needed"),
    "lengths": ({"topk_length": zeros(4, dtype=torch.int32)}, r"\(3,\) of torch.int32 is needed"),
    "devices": ({"kv": zeros(9, 1, 576).to("meta")}, "kv is on meta and q on cpu"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    changes, message = WRONG[name]
    right = {"q": zeros(3, 4, 576), "kv": zeros(9, 1, 576), "indices": zeros(3, 1, 5, dtype=torch.int32), "sm_scale": 1}
    with pytest.raises(CallError, match=message):
        flash_mla_sparse_fwd(**{**right, **changes})

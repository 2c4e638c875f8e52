"""A candidate of the backward pass is compared before it is timed, and slight faults are seen."""

from __future__ import annotations

import pytest
import torch

from attngen import reference
from attngen.op.gradient_launch import Call, Rows
from attngen.plan.backward import plan_backward
from attngen.problem import Problem
from attngen.spec import parse_spec
from attngen.tuner.kernel import checks_of
from tests.verify.right_gradients import right_kernel

LOG2E = 1.4426950408889634


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Sizes at which the reference takes no time."""
    monkeypatch.setattr("attngen.tuner.gradient_checks.CHECK_SEQ_Q", 67)
    monkeypatch.setattr("attngen.tuner.gradient_checks.CHECK_SEQ_K", 93)


def kind_of(fields="causal: true, sink: learned, window: {total: 40}", dtype="bfloat16"):
    return parse_spec(f"{{heads: {{query: 4, kv: 2}}, head_dim: 16, dtype: {dtype}, {fields}}}").kinds[0]


def plan_of(kind, kernel):
    return next(plan for plan in plan_backward(kind) if plan.kernel == kernel)


def checks(kind, kernel, sizes=(2, 130, 190)):
    plan = plan_of(kind, kernel)
    return checks_of(plan, Problem(kernel, kind.digest(), *sizes), device="cpu")


def pair_kernel(kind, kernel, weigh=lambda p: p):
    """A right kernel of plain scores, by the formulas: weights and their gradients rounded to the kind's dtype."""

    def rounded(x):
        return x.to(getattr(torch, kind.dtype)).double()

    def made(call: Call, rows: Rows, wanted=()):
        group = kind.heads.group
        q, k, v, dout = (x.double() for x in (call.q, call.k, call.v, call.dout))
        batch, heads, seq_q, dim = q.shape
        k, v = (x.repeat_interleave(group, 1) for x in (k, v))
        seen = reference.visible(kind, seq_q, k.shape[2])
        s = (q @ k.mT * kind.scale).masked_fill(~seen, -torch.inf)
        p = weigh(torch.exp2(s * LOG2E - rows.log_sum.double()[..., None]))
        ds = rounded(p * (dout @ v.mT - rows.delta.double()[..., None]))
        if kernel == "backward_q":
            return (ds @ k * kind.scale).to(call.q.dtype), {}
        grouped = (batch, heads // group, group, -1, dim)
        dk, dv = (x.reshape(grouped).sum(2) for x in (ds.mT @ q * kind.scale, rounded(p).mT @ dout))
        return dk.to(call.k.dtype), dv.to(call.v.dtype), {}

    return made


def kernel_of(kind, kernel):
    return right_kernel(plan_of(kind, kernel)) if kernel == "backward_rows" else pair_kernel(kind, kernel)


LEARNED = {
    "gates": "score: 's * gain[h] + w[i] + tanh(s) * u[h, j]', softcap: 20, alibi: true",
    "distance": "score: 's + bias[h, i - j + 32]', scale: 1.0, window: {half: 50}",
    "elements": "score: 's + e[i // 8, j // 8]', causal: true, sink: learned",
    "documents": "score: 's + w[i] + u[j]', causal: true, documents: true, prefix: argument",
    "blocks": "score: 's + w[i] + u[j]', causal: true, blocks: {size: 32}",
}


@pytest.mark.parametrize("name", LEARNED)
def test_shares_of_what_scores_read(name):
    """Right ones pass, also where a row's sum to nothing; those of another element do not."""
    kind = kind_of(LEARNED[name], "float32" if name == "gates" else "bfloat16")
    for plan in plan_backward(kind):
        if not plan.learned:
            continue
        checked, right = checks(kind, plan.kernel, (1, 140, 60)), right_kernel(plan)
        assert checked.find_fault(right) is None

        def moved(right=right, plan=plan, **inputs):
            made = right(**inputs)
            if plan.kernel == "backward_elements":
                return made.roll(1, dims=2)
            *gradients, sums = made
            return *gradients, {n: x.roll(1, dims=2) for n, x in sums.items()}

        assert "shares" in checked.find_fault(moved)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("kernel", ["backward_rows", "backward_kv", "backward_q"])
def test_a_right_kernel_passes(dtype, kernel):
    kind = kind_of(dtype=dtype)
    assert checks(kind, kernel).find_fault(kernel_of(kind, kernel)) is None


@pytest.mark.parametrize("fields", ["window: {left: 0, right: 0}", "causal: true", "window: {left: 30, right: 9}"])
@pytest.mark.parametrize("kernel", ["backward_kv", "backward_q"])
def test_masks_of_every_reach(fields, kernel):
    """Also where a query sees one key alone: then scores have no gradient, and what is left is rounding."""
    kind = kind_of(fields)
    assert checks(kind, kernel, (1, 150, 100)).find_fault(kernel_of(kind, kernel)) is None


@pytest.mark.parametrize("kernel", ["backward_kv", "backward_q"])
def test_a_key_too_many_is_seen(kernel):
    kind, other = kind_of("causal: true, window: {total: 40}"), kind_of("causal: true, window: {total: 41}")
    assert checks(kind, kernel).find_fault(pair_kernel(other, kernel)).startswith("small sizes: ")


@pytest.mark.parametrize(
    ("kernel", "name"), [("backward_kv", "k"), ("backward_kv", "v"), ("backward_q", "q"), ("backward_rows", "delta")]
)
def test_faults_at_the_problems_sizes_alone_are_seen(kernel, name):
    kind = kind_of()
    seq_q, seq_k, right = 130, 190, kernel_of(kind, kernel)
    place = {"k": 0, "v": 1, "q": 0, "delta": 1}[name]

    def broken(*arguments, **inputs):
        made = list(right(*arguments, **inputs))
        if made[place].shape[2] in (seq_q, seq_k):
            made[place] = made[place].roll(1, dims=2)
        return Rows(*made) if kernel == "backward_rows" else tuple(made)

    fault = checks(kind, kernel).find_fault(broken)
    assert fault.startswith(f"the problem's sizes: {name} is off by ")


def test_other_bits_in_a_second_run_are_seen():
    kind, runs = kind_of(), []
    right = pair_kernel(kind, "backward_q")

    def unordered(**inputs):
        runs.append(1)
        dq, sums = right(**inputs)
        dq[-1, -1, -30, 3] *= 1 + 2.0**-7 * (len(runs) % 2)
        return dq, sums

    assert checks(kind, "backward_q").find_fault(unordered) == "the problem's sizes: other bits in a second run"


def test_what_is_not_finite_is_seen_outside_of_strips():
    kind = kind_of()
    right = pair_kernel(kind, "backward_q")

    def infinite(**inputs):
        dq, sums = right(**inputs)
        dq[1, 0, 40, 0] = torch.inf if dq.shape[2] == 130 else 0.0
        return dq, sums

    assert "not finite" in checks(kind, "backward_q").find_fault(infinite)


def test_the_first_keys_are_compared_with_every_query_that_sees_them(monkeypatch):
    """What the reference cannot afford is left out: the last keys of a causal kind are few queries' alone."""
    kind = kind_of("causal: true")
    whole = checks(kind, "backward_kv")
    monkeypatch.setattr("attngen.tuner.gradient_checks.MOST_PAIRS", 16 * 190 * 2)
    assert (len(whole._parts), len(checks(kind, "backward_kv")._parts)) == (2, 1)

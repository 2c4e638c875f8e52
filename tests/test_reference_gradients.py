"""The reference's gradients are what autograd makes of the reference."""

import pytest
import torch
from hypothesis import given, settings

from attngen import reference
from tests.op.cases import Case, config_of, inputs_of, kind_of
from tests.op.gradient_cases import exact_gradients
from tests.op.test_gradients import TRAINED, trained_cases


def check(case: Case, of_lse: bool = True) -> None:
    inputs = inputs_of(case)
    generator = torch.Generator().manual_seed(0)
    dout = torch.randn((*inputs["q"].shape[:3], inputs["v"].shape[3]), generator=generator)
    dlse = torch.randn(inputs["q"].shape[:3], generator=generator) if of_lse else None
    exact = exact_gradients(case.kind, inputs, dout, dlse)
    made = reference.gradients(case.kind, dout, dlse, **inputs)
    assert made.keys() == exact.keys()
    for name, x in made.items():
        torch.testing.assert_close(x, exact[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("field", TRAINED)
def test_each_field(field):
    check(Case(TRAINED[field], config_of(), seq_q=9, seq_k=13, key_range=((0, 10), (3, 13)), offsets=(0, 7)))


@settings(max_examples=60, deadline=None)
@given(trained_cases())
def test_any_kind_and_sizes(drawn):
    case, of_lse = drawn
    check(case, of_lse)


def test_what_is_hidden_adds_nothing():
    """Where a derivative is infinite, and where nothing is seen at all."""
    kind = kind_of(score="s + log(i - j) * w[h]", mask="i > j", causal=True)
    inputs = inputs_of(Case(kind, config_of(), seq_q=5, seq_k=5))
    made = reference.gradients(kind, torch.ones(2, 2, 5, 16), torch.ones(2, 2, 5), **inputs)
    assert all(bool(torch.isfinite(x).all()) for x in made.values())
    assert not made["q"][:, :, 0].any()
    assert not made["k"][:, :, 4].any()

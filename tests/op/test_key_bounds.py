"""The keys that each query may select: what the reference lets it see."""

import pytest
import torch

from attngen import reference
from attngen.op.key_bounds import key_bounds
from attngen.spec.model import HeadDim, Heads, Kind, Window

FIELDS = [
    {},
    {"causal": True},
    {"window": Window(3, 1)},
    {"causal": True, "window": Window(2, 0)},
    {"window": Window(None, 2)},
    {"chunk": 4},
    {"chunk": 3, "causal": True, "window": Window(1, None)},
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("sizes", [(6, 11), (9, 5)])
def test_they_are_what_is_visible(fields, moved, sizes):
    kind = Kind("kind", Heads(1, 1), HeadDim(16, 16), **fields)
    given = {}
    if moved:
        given["offsets"] = torch.tensor([2, -3], dtype=torch.int32)
        given["key_range"] = torch.tensor([[1, 9], [-2, 40]], dtype=torch.int32)
    first, end = key_bounds(kind, 2, *sizes, torch.device("cpu"), **given)
    assert first.dtype == end.dtype == torch.int32 and first.shape == end.shape == (2, sizes[0])
    assert bool((first >= 0).all()) and bool((end <= sizes[1]).all())
    j = torch.arange(sizes[1])
    for batch in range(2):
        seen = reference.visible(kind, *sizes, batch=batch, **given)
        assert torch.equal((j >= first[batch, :, None]) & (j < end[batch, :, None]), seen)

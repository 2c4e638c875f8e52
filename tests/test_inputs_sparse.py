"""Random lists of blocks: of those that a query may see, and no others."""

import pytest
import torch

from attngen.inputs_sparse import make_blocks
from tests.op.routed_cases import routed_kind


@pytest.mark.parametrize("together", [1, 7])
def test_lists_of_blocks(together):
    kind = routed_kind(size=16, top_k=4)
    lists = make_blocks(kind, 2, 150, 150, device="cpu", together=together)["blocks"]
    own = torch.arange(150) // 16
    assert lists.shape == (2, 2, 150, 4) and lists.dtype == torch.int32
    assert ((lists >= 0).sum(-1) == (own + 1).clamp(max=4)).all()
    assert (lists <= own[:, None]).all() and (lists == own[:, None]).any(-1).all()
    chosen = lists[lists[..., -1] >= 0]
    assert (chosen.diff(dim=-1) > 0).all()  # ascending, and none twice
    alike = (lists[:, :, 147:149] == lists[:, :, 148:]).all()
    assert bool(alike) == (together == 7)

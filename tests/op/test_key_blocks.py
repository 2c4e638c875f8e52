"""Blocks of keys: their means against the reference, and which hold an interval of keys."""

import pytest
import torch

from attngen import reference
from attngen.op.key_blocks import block_means, blocks_between


@pytest.mark.parametrize("seq_k", [1, 8, 21, 24])
@pytest.mark.parametrize("ranged", [False, True])
def test_block_means_are_the_references(seq_k, ranged):
    k = torch.randn(2, seq_k, 3, 16).transpose(1, 2)
    key_range = torch.tensor([[2, seq_k - 1], [0, 99]], dtype=torch.int32) if ranged else None
    if key_range is not None:
        k[0, :, :2] = float("nan")
    expected = reference.mean_keys(k, 8, key_range=key_range)
    torch.testing.assert_close(block_means(k, 8, key_range), expected.float(), rtol=1e-6, atol=1e-6)


def test_blocks_between_hold_the_keys_and_no_others():
    first, end = torch.meshgrid(torch.arange(20), torch.arange(20), indexing="ij")
    blocks = blocks_between(first, end, 8)
    for a, b, begin, stop in zip(first.flatten(), end.flatten(), *(x.flatten() for x in blocks), strict=True):
        assert {int(j) // 8 for j in range(int(a), int(b))} == set(range(int(begin), int(stop)))

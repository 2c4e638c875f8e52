"""Means of blocks and windows of keys, against the reference and plain slices."""

import pytest
import torch

from attngen import reference
from attngen.op.compressed import window_means
from attngen.op.key_blocks import block_means


@pytest.mark.parametrize("seq_k", [1, 8, 21, 24])
@pytest.mark.parametrize("ranged", [False, True])
def test_block_means_are_the_references(seq_k, ranged):
    k = torch.randn(2, seq_k, 3, 16).transpose(1, 2)
    key_range = torch.tensor([[2, seq_k - 1], [0, 99]], dtype=torch.int32) if ranged else None
    if key_range is not None:
        k[0, :, :2] = float("nan")
    expected = reference.mean_keys(k, 8, key_range=key_range)
    torch.testing.assert_close(block_means(k, 8, key_range), expected.float(), rtol=1e-6, atol=1e-6)


def test_window_means():
    x = torch.randn(1, 2, 23, 4)
    means = window_means(x, 8, 4)
    assert means.shape == (1, 2, 4, 4)
    torch.testing.assert_close(means[0, 1, 3], x[0, 1, 12:20].mean(0))
    assert window_means(x, 24, 4).shape == (1, 2, 0, 4)

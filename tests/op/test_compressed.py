"""Compressed keys: means against plain slices, and which of them stand for keys that are valid and seen alone."""

import pytest
import torch

from attngen.op.compressed import compressed_bounds, positions, window_means

SIZE, STRIDE, KEYS = 8, 4, 45


def test_window_means():
    x = torch.randn(1, 2, 23, 4)
    means = window_means(x, 8, 4)
    assert means.shape == (1, 2, 4, 4)
    torch.testing.assert_close(means[0, 1, 3], x[0, 1, 12:20].mean(0))
    assert window_means(x, 24, 4).shape == (1, 2, 0, 4)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("ranged", [True, False])
@pytest.mark.parametrize("offsets", [None, torch.tensor([3, 40], dtype=torch.int32)])
def test_bounds_are_of_keys_that_stand_for_seen_ones_alone(causal, ranged, offsets):
    key_range = torch.tensor([[5, 44], [-2, 99]], dtype=torch.int32) if ranged else None
    i = positions(torch.empty(2, 1, 9, 1), KEYS, offsets)
    count = (KEYS - SIZE) // STRIDE + 1
    first, end = compressed_bounds(i, KEYS, SIZE, STRIDE, compressed=count, causal=causal, key_range=key_range)
    for b in range(2):
        low, high = (0, KEYS) if key_range is None else (max(int(key_range[b, 0]), 0), min(int(key_range[b, 1]), KEYS))
        for n in range(9):
            last = min(high, int(i[b, n]) + 1) if causal else high
            seen = [c for c in range(count) if low <= c * STRIDE and c * STRIDE + SIZE <= last]
            assert list(range(int(first[b, n]), int(end[b, n]))) == seen

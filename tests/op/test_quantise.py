"""Quantisation and caches: kernels give PyTorch's bits, which are what the formats say."""

import pytest
import torch

from attngen.errors import CallError
from attngen.op.cache import CacheWriter, index_pages, latent_cache, read_latent, read_pages
from attngen.op.quantise import QuantiseLauncher, quantise_in_torch, rotated
from attngen.plan.quantise import plan_latent, plan_pages, plan_quantise
from tests.op.indexer_cases import QuantiseCase, kind_of, rows_of, run_quantise

KIND = kind_of()
FLOAT32 = kind_of(format="float32")
CASES = {
    "bfloat16": QuantiseCase(plan_quantise(KIND), (9,)),
    "float16": QuantiseCase(plan_quantise(KIND, source="float16"), (3, 4)),
    "float32, scales of float32": QuantiseCase(plan_quantise(FLOAT32, source="float32"), (3, 2, 5)),
    "strided": QuantiseCase(plan_quantise(FLOAT32), (3, 2, 5), strided=True),
    "one row": QuantiseCase(plan_quantise(KIND), (1,)),
    "96 columns": QuantiseCase(plan_quantise(kind_of(head_dim=96)), (9,)),
    "rotated": QuantiseCase(plan_quantise(FLOAT32, rotate=True, source="float32"), (2, 5)),
    "rotated, 32 columns": QuantiseCase(plan_quantise(kind_of(head_dim=32), rotate=True), (2, 5), strided=True),
    "large": QuantiseCase(plan_quantise(KIND, source="float32"), (9,), magnitude=1e20),
    "pages": QuantiseCase(plan_pages(FLOAT32), (70,), block_m=32),
    "pages, rotated": QuantiseCase(plan_pages(KIND, rotate=True), (2, 40), block_m=32, strided=True),
    "pages of 96 columns": QuantiseCase(plan_pages(kind_of(head_dim=96)), (70,), block_m=32),
    "latent": QuantiseCase(plan_latent(KIND), (3, 5), strided=True),
    "latent, powers of two": QuantiseCase(plan_latent(KIND, format="ue8m0"), (11,)),
}


@pytest.mark.parametrize("name", CASES)
def test_bits(interpreter, name):
    assert interpreter(run_quantise, CASES[name]) == []


def test_scales_are_what_the_formats_say():
    x = rows_of(CASES["float32, scales of float32"]).reshape(-1, 128)
    values, scale = quantise_in_torch(x, "float32", False)
    assert torch.equal(scale, x.abs().amax(-1).clamp_min(1e-4) / 448)
    _, powers = quantise_in_torch(x, "ue8m0", False)
    assert torch.equal(powers, torch.exp2(torch.ceil(torch.log2(scale.double()))).float())
    assert (powers >= scale).all() and (powers < 2 * scale).all()
    exactly = torch.full((1, 128), 448.0)
    assert quantise_in_torch(exactly, "ue8m0", False)[1] == 1.0
    error = (values.double() * scale[:, None] - x).abs()
    subnormal = scale[:, None] * 2.0**-10  # half the least distance of e4m3
    assert (error <= torch.maximum(x.abs() * 2.0**-4 * (1 + 1e-6), subnormal)).all()


def test_rotations_are_sylvesters():
    h = torch.ones(1, 1)
    while len(h) < 64:
        h = torch.cat((torch.cat((h, h), 1), torch.cat((h, -h), 1)), 0)
    x = torch.randn(5, 64)
    exact = x.double() @ h.double() / 8
    assert (rotated(x) - exact).abs().max() <= 2.0**-24 * 8 * x.abs().sum(-1).max()
    assert torch.allclose(rotated(rotated(x)), x, atol=1e-5)


def test_sixteen_bits_are_taken_as_they_are():
    plan = plan_quantise(KIND, dtype="bfloat16", rotate=True)
    x = torch.randn(3, 4, 128).bfloat16()
    values, scale = QuantiseLauncher(plan)(x)
    assert values is x and scale.shape == (3, 4) and (scale == 1).all()


def test_caches_are_laid_out_as_their_readers_want():
    x = torch.randn(130, 576).bfloat16()
    slots = torch.randperm(140)[:130]
    slots[7] = -1
    cache = latent_cache(140, "cpu")
    CacheWriter(plan_latent(KIND))(x, cache, slots)
    row = cache[slots[5]]
    scale = x[5, :512].view(4, 128).float().abs().amax(-1) / 448
    assert torch.equal(row[512:528].view(torch.float32), scale)
    assert torch.equal(row[528:].view(torch.bfloat16), x[5, 512:])
    read = read_latent(cache)[slots[5]]
    assert torch.equal(read[512:], x[5, 512:])
    assert (read[:512].float() - x[5, :512].float()).abs().max() <= x[5].abs().max() * (2.0**-4 + 2.0**-8)

    keys = x[:, :128].contiguous()
    pages = index_pages(3, 128, "cpu")
    CacheWriter(plan_pages(FLOAT32))(keys, pages, slots)
    values, scales = quantise_in_torch(keys, "float32", False)
    slot = int(slots[9])
    page = pages[slot // 64].flatten()
    assert torch.equal(page[slot % 64 * 128 : slot % 64 * 128 + 128], values[9].view(torch.uint8))
    assert page[8192 + slot % 64 * 4 : 8196 + slot % 64 * 4].view(torch.float32) == scales[9]
    held, held_scales = read_pages(pages)
    assert torch.equal(held[slot // 64, slot % 64].view(torch.uint8), values[9].view(torch.uint8))
    assert held_scales[slot // 64, slot % 64] == scales[9]


@pytest.mark.parametrize(
    "call",
    [
        lambda: QuantiseLauncher(plan_quantise(KIND))(torch.zeros(3, 64).bfloat16()),
        lambda: QuantiseLauncher(plan_quantise(KIND))(torch.zeros(3, 128)),
        lambda: QuantiseLauncher(plan_quantise(KIND))(torch.zeros(128, 3).bfloat16().T),
        lambda: QuantiseLauncher(plan_quantise(KIND))(torch.zeros(1, 1, 1, 1, 128).bfloat16()),
        lambda: CacheWriter(plan_latent(KIND))(torch.zeros(2, 576).bfloat16(), latent_cache(4, "cpu"), torch.zeros(3)),
        lambda: CacheWriter(plan_pages(KIND))(
            torch.zeros(2, 128).bfloat16(), latent_cache(4, "cpu"), torch.zeros(2, dtype=torch.int64)
        ),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(CallError):
        call()

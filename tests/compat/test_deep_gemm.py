"""DeepGEMM's function by name: its shapes, its conventions, and what it refuses."""

import pytest
import torch

from attngen import CallError
from attngen.compat.deep_gemm import fp8_mqa_logits


def arguments(device="cpu", seq_q=9, seq_k=300, heads=16, dim=64):
    generator = torch.Generator(device=device).manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, device=device)

    end = torch.arange(seq_q, dtype=torch.int32, device=device) + (seq_k - seq_q + 1)
    return {
        "q": normal(seq_q, heads, dim).to(torch.float8_e4m3fn),
        "kv": (normal(seq_k, dim).to(torch.float8_e4m3fn), normal(seq_k).abs()),
        "weights": normal(seq_q, heads),
        "cu_seq_len_k_start": end // 3,
        "cu_seq_len_k_end": end,
    }


def by_hand(given):
    products = torch.einsum("thd,sd->ths", given["q"].double(), given["kv"][0].double()).relu()
    logits = torch.einsum("ths,th->ts", products, given["weights"].double()) * given["kv"][1].double()
    j = torch.arange(logits.shape[1], device=logits.device)
    seen = (j >= given["cu_seq_len_k_start"][:, None]) & (j < given["cu_seq_len_k_end"][:, None])
    return logits, seen


def check(given, logits, clean):
    right, seen = by_hand(given)
    assert logits.shape == right.shape and logits.dtype == torch.float32 and logits.stride(0) % 256 == 0
    x, y = logits[seen].double(), right[seen]
    assert float(1 - 2 * (x * y).sum() / (x * x + y * y).sum()) < 5e-6
    assert not clean or bool((logits[~seen] == -torch.inf).all())


def test_logits_on_the_cpu():
    given = arguments()
    check(given, fp8_mqa_logits(**given), clean=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("sizes", [(9, 300, 16, 64), (333, 5000, 64, 128), (70, 1001, 100, 128)])
def test_logits_on_a_gpu(sizes, clean):
    given = arguments("cuda", *sizes)
    check(given, fp8_mqa_logits(**given, clean_logits=clean), clean)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"q": torch.zeros(9, 16, 64)}, r"q is \(9, 16, 64\) of torch.float32; \(9, 16, 64\) of torch.float8_e4m3fn"),
        ({"weights": torch.zeros(9, 8)}, r"weights is \(9, 8\) of torch.float32; \(9, 16\) of torch.float32 is"),
        ({"max_seqlen_k": 64}, "max_seqlen_k is 64; 0 is needed"),
        ({"cu_seq_len_k_end": torch.zeros(9)}, "cu_seq_len_k_end is"),
    ],
)
def test_what_does_not_fit_is_said(changes, words):
    with pytest.raises(CallError, match=words):
        fp8_mqa_logits(**(arguments() | changes))

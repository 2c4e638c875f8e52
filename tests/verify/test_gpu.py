"""Verification on a GPU: right kernels pass by PyTorch's own error, wrong ones do not."""

import pytest
import torch

from attngen.op import Launcher
from attngen.spec import parse_spec
from attngen.target import detect
from attngen.verify.cases import gpu_cases
from attngen.verify.kinds import verify_kinds

pytestmark = pytest.mark.gpu

FIELDS = [
    "causal: true, sink: learned, window: {total: 128}",
    "window: {half: 64}",
    "causal: true, softcap: 20",
    'mask: "doc[b, i] == doc[b, j] and j <= i"',
    "scale: 0.1",
]


def kind_of(fields):
    return parse_spec("{heads: {query: 8, kv: 2}, head_dim: 64, dtype: bfloat16, " + fields + "}").kinds[0]


@pytest.mark.parametrize("fields", FIELDS)
def test_kernels_are_right(fields, tmp_path):
    kind = kind_of(fields)
    found = list(verify_kinds([kind], detect(), db=str(tmp_path / "db")))
    assert {f.case for f in found} == {str(case) for case in gpu_cases(kind)}
    assert not [f for f in found if f.status == "failed"]


def test_a_wrong_kernel_is_caught(tmp_path):
    def one_key_more(plan, config):
        launcher = Launcher(plan, config)

        def kernel(q, k, v, **keywords):
            out, lse = launcher(q, k, v, **keywords)
            lse = torch.where(torch.isinf(lse), lse, lse + 1.0 / k.shape[2])
            return out, lse

        return kernel

    found = list(verify_kinds([kind_of("causal: true")], detect(), db=str(tmp_path / "db"), make_kernel=one_key_more))
    assert any(f.status == "failed" and "lse" in f.fault for f in found)

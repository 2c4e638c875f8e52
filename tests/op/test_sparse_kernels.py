"""Which kernels the op of a kind that selects keys launches, in the interpreter, and that they fit together."""

import pytest

from attngen.spec.model import HeadDim, Heads, Indexer, Kind, Latent, Select, Window
from tests.op.sparse_cases import SparseCase, run_sparse

SELECT = Select(16, Indexer(8, 32, "float16"), first=1, last=2)
LATENT = Kind("k", Heads(2, 1), HeadDim(48, 32), "float16", 0.15, True, latent=Latent(32, 16), select=SELECT)
GROUPS = Kind("k", Heads(4, 2), HeadDim(16, 16), "float16", 0.25, True, Window(40, 0), sink=True, select=SELECT)
PADDED = {"key_range": ((0, 30), (4, 45))}
CASES = {
    "latent": (SparseCase(LATENT, "", 2, 45, **PADDED), ["indexer_logits", "select_keys", "gathered_attention"]),
    "groups": (
        SparseCase(GROUPS, "", 9, 45, batch=1, offsets=(30,), workspace_bytes=4 * 256 * 8),
        ["indexer_logits", "select_keys"] * 2 + ["gathered_attention"],
    ),
    "latent, lists that are given": (SparseCase(LATENT, "", 3, 45, lengths=(0, 5, 16)), ["gathered_attention"]),
    "latent, whole": (SparseCase(LATENT, "", 5, 16, key_range=((0, 16), (4, 15))), ["gathered_attention"]),
    "groups, whole": (SparseCase(GROUPS, "", 5, 16, key_range=((0, 16), (4, 15))), ["attention_forward"]),
}


@pytest.mark.parametrize("name", CASES)
def test_kernels(interpreter, name, tmp_path):
    case, expected = CASES[name]
    case = SparseCase(**{**vars(case), "db": str(tmp_path / "none.sqlite")})
    launched, error, lse_error = interpreter(run_sparse, case)
    assert launched == expected
    assert error < 2 * 2.0**-11 and lse_error < 1e-4

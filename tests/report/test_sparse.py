"""What the parts of sparse attention cost at least, counted by hand."""

from pathlib import Path

import pytest

from attngen.database import open_database
from attngen.report.sparse import block_attention_work, block_scores_work, part_work, sparse_costs
from attngen.report.tunings import tunings
from attngen.spec import load_spec, parse_spec
from attngen.target import get_target

SPEC = (
    "{name: s, heads: 4, latent: {rank: 32, rope: 16}, causal: true, select: {top_k: 16, indexer: {heads: 8, "
    "head_dim: 32}}}"
)
KIND = parse_spec(SPEC).kinds[0]
H100 = get_target("h100")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("sizes", [(20, 20), (5, 50), (7, 9)])
def test_parts(sizes):
    seq_q, seq_k = sizes
    seen = [seq_k - seq_q + i + 1 for i in range(seq_q)]
    indexer, select, gathered = (part_work(KIND, part, 3, *sizes, H100) for part in ("indexer", "select", "gathered"))
    assert indexer.flops == 3 * 2 * 8 * 32 * sum(seen)
    assert indexer.bytes == 3 * ((seq_q * 8 + seq_k) * 32 + 4 * sum(seen))
    assert select.bytes == 3 * (4 * sum(seen) + 4 * seq_q * 16) and select.flops == 0
    assert gathered.flops == 3 * 2 * 4 * (48 + 32) * sum(min(n, 16) for n in seen)


def test_short_sequences_cost_attention_alone():
    short, long = sparse_costs(KIND, [(1, 16), (1, 65536)], H100)
    assert short.parts["indexer"] == short.parts["selection"] == 0.0 and short.total_ms == short.parts["attention"] > 0
    assert all(long.parts.values())


BLOCKS = "{heads: {query: 4, kv: 2}, head_dim: 16, causal: true, select: {blocks: {size: 8, top_k: 3, last: 1}}}"


@pytest.mark.parametrize("sizes", [(40, 40), (5, 50)])
def test_blocks(sizes):
    kind = parse_spec(BLOCKS).kinds[0]
    seq_q, seq_k = sizes
    seen = [seq_k - seq_q + i + 1 for i in range(seq_q)]
    listed = [min(n, 16 + (n - 1) % 8 + 1) for n in seen]  # two whole blocks, and the query's own
    attention = block_attention_work(kind, 3, *sizes, H100)
    assert attention.flops == 3 * 2 * 4 * 32 * sum(listed)
    scores = block_scores_work(kind, None, 3, *sizes, H100)
    assert scores.flops == 3 * 2 * 4 * 16 * (sum(seen) // 8)
    assert scores.bytes == 3 * (2 * 16 * (seq_q * 4 + seq_k * 2) + 4 * seq_q * 4 * 3)


def test_branches_are_weighed_one_by_one():
    (kind,) = load_spec(EXAMPLES / "nsa-27b.yaml").kinds
    short, long = sparse_costs(kind, [(1, 1024), (1, 65536)], H100)
    assert list(long.parts) == ["compressed", "selected, selection", "selected", "window"]
    assert short.parts["selected, selection"] == 0.0 and all(long.parts.values())
    assert long.dense_ms > 5 * long.total_ms


def test_tunings_of_every_kernel_are_shown(tmp_path):
    spec = load_spec(EXAMPLES / "deepseek-v3.2.yaml")
    rows = tunings(open_database(str(tmp_path / "tunings.sqlite")), H100, spec)
    assert {row.problem.kernel for row in rows} == {"indexer", "select", "gathered"}
    assert all(row.title == f"{row.kind} {row.problem.kernel}" for row in rows)

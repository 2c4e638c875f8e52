"""Verification of kinds that select blocks and of branches: generated kernels pass, and spoilt ones do not."""

from pathlib import Path

import pytest

from attngen import reference
from attngen.plan.kernels import launched_plans
from attngen.spec import load_spec, parse_spec
from attngen.target import get_target
from attngen.verify.cases import shortened
from attngen.verify.interpreted import verify_interpreted
from attngen.verify.kinds import verify_kinds

H100 = get_target("h100")
HEAD = "causal: true, head_dim: 16, heads: {query: 4, kv: 2}"
EACH = parse_spec("{name: each, " + HEAD + ", select: {blocks: {size: 8, top_k: 3, last: 1}}}")
BRANCHES = parse_spec(
    "{name: branches, heads: {query: 8, kv: 1}, head_dim: 16, causal: true, branches: {coarse: {compress: {size: 8, "
    "stride: 4}}, chosen: {select: {blocks: {size: 8, top_k: 3, last: 1, per: kv_head, by: coarse}}}}}"
)


@pytest.fixture(autouse=True)
def no_database(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNGEN_DB", str(tmp_path / "tunings.sqlite"))


@pytest.mark.parametrize("spec", [EACH, BRANCHES], ids=lambda spec: spec.name)
def test_generated_kernels_are_right(spec):
    found = list(verify_interpreted(spec, [spec.kinds[0].name], H100, seqs=(37,)))
    assert {finding.status for finding in found} == {"ok"}
    kernels = [finding.kernel for finding in found]
    assert set(kernels) == {"forward", "block_select", *(["routed"] if spec is EACH else ["gathered", "gated"])}


def spoilt(kernel, change):
    """Kernels of the reference, one of them with a result that ``change`` has spoilt."""

    def make(plan, config):
        def block_select(q, keys, block_first, block_end, **of_paid):
            scores = reference.mean_scores(plan.kind, q, keys)
            bounds = (bound[:, None].expand(scores.shape[:3]).flatten() for bound in (block_first, block_end))
            begin, end = bounds
            blocks = plan.blocks
            made = reference.select_keys(scores.flatten(0, 2), begin, end, blocks.top_k, last=blocks.last)
            return made.reshape(*scores.shape[:3], blocks.top_k)

        def attention(blocks=None, **inputs):
            if blocks is not None:
                inputs["indices"] = reference.keys_of_blocks(blocks, plan.select.size)
            out, lse = reference.attention(plan.kind, **inputs)
            return out.half(), lse.float()

        right = block_select if plan.kernel == "block_select" else attention
        return (lambda **inputs: change(right(**inputs))) if plan.kernel == kernel else right

    return make


def another_block(lists):
    """A query that sees two blocks beside its own takes the other one."""
    lists = lists.clone()
    row = lists[0, 0, -1]
    others = [n for n in range(5) if n not in row.tolist()]
    row[0] = others[0]
    row.copy_(row.sort().values)
    return lists


SPOILT = [
    ("none", lambda made: made, None),
    ("block_select", another_block, "1 blocks score less than the least that belong in their lists"),
    ("block_select", lambda lists: lists.flip(-1), "not of different blocks in ascending order"),
    ("routed", lambda made: (made[0] * 1.002, made[1]), "the error is larger than rounding explains"),
]


@pytest.mark.parametrize(("kernel", "change", "fault"), SPOILT, ids=[f"{name}: {fault}" for name, _, fault in SPOILT])
def test_spoilt_kernels_are_found(kernel, change, fault):
    found = list(verify_kinds(EACH.kinds, H100, interpret=True, seqs=(45,), make_kernel=spoilt(kernel, change)))
    wrong = {finding.kernel: finding.fault for finding in found if finding.status != "ok"}
    assert list(wrong) == ([] if fault is None else [kernel])
    assert fault is None or fault in wrong[kernel]


@pytest.mark.parametrize("name", ["moba-llama-3.1-8b", "nsa-27b"])
def test_examples_are_cut_short_into_kinds_that_are_generated(name):
    for kind in load_spec(Path(__file__).parents[2] / "examples" / f"{name}.yaml").kinds:
        small = shortened(kind)
        assert len(launched_plans(small, H100)) == len(launched_plans(kind, H100))
        for one in small.branches or (small,):
            assert one.dtype == "float16" and (
                kind.name == "full" or (one.heads.kv, one.heads.group <= 16) == (2, True)
            )

"""``attngen verify``, ``tune`` and ``run``: long work, on machines without a GPU."""

import json
from types import SimpleNamespace

import pytest

from attngen.report.layers import counted
from attngen.verify.finding import Finding


def finding(**changes):
    values = {"kind": "attention", "case": "1 x 8 x 8", "config": "portable 64x32", "error": 0.5, "allowed": 1.0}
    return Finding(**{**values, **changes})


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        ([finding()], 0, "none wrong"),
        ([finding(), finding(status="failed", fault="NaN")], 1, "failed: attention, 1 x 8 x 8, portable 64x32: NaN"),
        ([finding(), finding(status="skipped", fault="too big")], 0, "skipped: attention"),
        ([finding(status="skipped", fault="too big")], 1, "too big"),
    ],
)
def test_verify_says_what_was_found(attngen, tiny, monkeypatch, found, status, words):
    monkeypatch.setattr("attngen.verify.interpreted.verify_interpreted", lambda *a, **k: iter(found))
    result = attngen("verify", tiny)
    assert result.exit_code == status and words in result.stdout and result.stderr == ""
    values = json.loads(attngen("verify", tiny, "--json").stdout)
    assert values["ok"] == (status == 0) and len(values["findings"]) == len(found)


def test_verify_says_which_kinds_have_no_backward_pass(attngen, tmp_path, monkeypatch):
    path = tmp_path / "mixed.yaml"
    path.write_text(
        "{name: mixed, heads: {query: 4, kv: 2}, head_dim: 32, causal: true, kinds: {dense: {}, sparse: {select: "
        "{top_k: 16, indexer: {heads: 8, head_dim: 32}}}}, pattern: [dense, sparse]}"
    )
    found = [finding(kind="dense"), finding(kind="dense", kernel="backward_kv"), finding(kind="sparse")]
    monkeypatch.setattr("attngen.verify.interpreted.verify_interpreted", lambda *a, **k: iter(found))
    text = " ".join(attngen("verify", path).stdout.split())
    assert "sparse: no backward pass: selects keys" in text and "dense: no backward pass" not in text
    assert "a gradient's is relative L2" in text and "dense backward_kv" in text
    values = json.loads(attngen("verify", path, "--json").stdout)
    assert values["no_backward_pass"] == {"sparse": "selects keys"}


def test_tune_by_the_cost_model(attngen, tiny):
    result = attngen("tune", tiny, "--trials", 2, "--workers", 1, "--seq", 256, "--target", "a100")
    assert result.exit_code == 0, result.stderr
    assert "tuned for a100, by the cost model" in result.stdout and "64 x 256 x 256" in result.stdout
    values = json.loads(attngen("tune", tiny, "--trials", 2, "--seq", 256, "--target", "a100", "--json").stdout)
    assert values[0]["known"] == 2 and values[0]["tried"] == 0 and values[0]["ms"] > 0
    shown = json.loads(attngen("show", tiny, "--target", "a100", "--json").stdout)
    assert [row["source"] for row in shown["tunings"]] == ["model"]


def test_tune_says_that_there_was_no_time(attngen, tiny):
    result = attngen("tune", tiny, "--minutes", "0.0000001", "-q", "--workers", "1")
    assert result.exit_code == 1
    assert "none tried: the time was too short" in result.stdout


def test_tune_the_backward_pass(attngen, tiny):
    """Each of its kernels is a problem of its own, in the database too."""
    options = ["--backward", "--trials", 1, "--workers", 1, "--seq", 256, "--target", "a100"]
    values = json.loads(attngen("tune", tiny, *options, "--json").stdout)
    kernels = ["backward_rows", "backward_kv", "backward_q"]
    assert [(row["kernel"], row["tried"], row["source"]) for row in values] == [(k, 1, "model") for k in kernels]
    shown = json.loads(attngen("show", tiny, "--target", "a100", "--json").stdout)["tunings"]
    assert sorted(row["kernel"] for row in shown) == sorted(kernels)
    again = json.loads(attngen("db", "import", "-", "--json", stdin=attngen("db", "export").stdout).stdout)
    assert again == {"found": 3, "new": 0}


def test_tuning_a_backward_pass_that_there_is_not_is_refused(attngen, tmp_path):
    path = tmp_path / "eight.yaml"
    path.write_text("{name: eight, heads: 2, head_dim: 32, dtype: float8_e4m3}")
    result = attngen("tune", path, "--backward", "--target", "h100")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "is in float8_e4m3, and has no backward pass" in result.stderr


def test_kinds_without_a_backward_pass_are_left_out(attngen, tmp_path):
    path = tmp_path / "mixed.yaml"
    path.write_text(
        "{name: mixed, heads: 2, head_dim: 32, kinds: {eight: {dtype: float8_e4m3}, full: {}}, pattern: [eight, full]}"
    )
    options = ["--backward", "--trials", 1, "--workers", 1, "--seq", 256, "--target", "a100", "--json"]
    result = attngen("tune", path, *options)
    assert {row["kind"] for row in json.loads(result.stdout)} == {"full"}
    assert result.stderr == "attngen: eight: no backward pass: is in float8_e4m3\n"


def test_run_is_the_whole_job(attngen, tiny, tmp_path):
    result = attngen("run", tiny, "--trials", 2, "--seq", 256, "--out", "out/kernels")
    assert result.exit_code == 0, result.output
    text = result.stdout
    for title in ("1. generate", "2. verify: in the interpreter", "3. tune: by the cost model", "4. show"):
        assert title in text
    assert "none wrong" in text and "tiny is done, in " in text and "attn = attngen.load(" in text
    assert (tmp_path / "out" / "kernels" / "__init__.py").is_file()


def test_run_knows_kinds_that_select_keys(attngen, tmp_path, monkeypatch):
    """Every kernel is compiled; what the cost model does not know is tuned elsewhere."""
    path = tmp_path / "selects.yaml"
    path.write_text(
        "{name: selects, heads: 2, latent: {rank: 32, rope: 16}, causal: true, select: {top_k: 16, indexer: {heads: 8, "
        "head_dim: 32}}}"
    )
    found = [finding(kernel="select", error=0.0, allowed=0.0), finding(kernel="gathered")]
    monkeypatch.setattr("attngen.verify.interpreted.verify_interpreted", lambda *a, **k: iter(found))
    result = attngen("run", path, "--seq", 256, "--out", "out/kernels", "--target", "a100")
    assert result.exit_code == 0, result.output
    for words in ("attention indexer ", "attention select ", "attention gathered ", "tuned on a100 itself"):
        assert words in result.stdout
    assert "2 kernels in the interpreter" in result.stdout
    assert "attn(q, k, layer=0, index_q=index_q, index_k=index_k, index_weights=weights)" in result.stdout
    assert (tmp_path / "out" / "kernels" / "_selecting.py").is_file()


def test_run_knows_kinds_in_branches(attngen, tmp_path, monkeypatch):
    path = tmp_path / "branched.yaml"
    path.write_text(
        "{name: branched, heads: 16, head_dim: 32, causal: true, kinds: {sparse: {branches: {coarse: {compress: {"
        "size: 8, stride: 4}}, chosen: {select: {blocks: {size: 8, top_k: 3, last: 1, per: kv_head, by: coarse}}}}}}}"
    )
    needs = SimpleNamespace(registers=1, spills=0, shared=0, seconds=0.1)
    monkeypatch.setattr("attngen.source.compile_source", lambda *a: needs)
    monkeypatch.setattr("attngen.verify.interpreted.verify_interpreted", lambda *a, **k: iter([finding()]))
    result = attngen("run", path, "--seq", 256, "--out", "out/kernels", "--target", "a100")
    assert result.exit_code == 0, result.output
    for words in ("sparse.coarse ", "sparse.chosen block_select ", "sparse.chosen routed ", "tuned on a100 itself"):
        assert words in result.stdout, words
    assert "attn(q, k, v, layer=0, gates=gates)" in result.stdout
    assert (tmp_path / "out" / "kernels" / "sparse_chosen.py").is_file()


def test_run_stops_where_verification_fails(attngen, tiny, monkeypatch):
    wrong = [finding(status="failed", fault="NaN")]
    monkeypatch.setattr("attngen.verify.interpreted.verify_interpreted", lambda *a, **k: iter(wrong))
    result = attngen("run", tiny, "--trials", 1)
    assert result.exit_code == 1 and "NaN" in result.stdout
    assert "3. tune" not in result.stdout and "is done" not in result.stdout
    values = json.loads(attngen("run", tiny, "--trials", 1, "--json").stdout)
    assert values["ok"] is False and values["tunings"] == [] and values["kernels"][0]["registers"] > 0


def test_counting():
    assert (counted(1, "file"), counted(0, "file"), counted(2, "file")) == ("1 file", "0 files", "2 files")

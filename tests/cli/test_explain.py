"""``attngen explain``: the picture, the figures, the loops."""

import json
import sys

import pytest

TINY_PICTURE = """\
attention: layers 0 of tiny
query i sees key j when {sees}
       0                 key                 39
      ┌────────────────────────────────────────┐
    0 │▓▓                                      │
      │██▓▓                                    │
      │████▓▓                                  │
      │██████▓▓                                │
      │▓▓██████▓▓                              │
      │  ▓▓██████▓▓                            │
      │    ▓▓██████▓▓                          │
"""


def test_a_small_picture(attngen, tiny):
    """Cells of 2 x 2: a query and the 8 keys before it, so that cells on the diagonal are three quarters full."""
    result = attngen("explain", tiny, "--seq", 40)
    assert result.exit_code == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    wanted = TINY_PICTURE.format(sees=lines[1].removeprefix("query i sees key j when ")).splitlines()
    assert lines[: len(wanted)] == wanted


def test_figures_of_a_window(attngen, examples):
    """ANCHORS: at B8 S8192, 0.134 ms for the bytes of +-64 and 0.032 ms for its products, on an H100."""
    result = attngen("explain", examples / "modernbert-base.yaml", "--kind", "local", "--seq", 8192, "--batch", 8)
    text = " ".join(result.stdout.split())
    assert "1052608 of 67108864 pairs are visible (1.6%)" in text
    assert "bytes 406 MB 3.01 TB/s 0.135 ms <- the limit" in text
    assert "math 25.9 GFLOP 798 TFLOP/s 32.4 us" in text
    assert "at least 0.135 ms on h100, by bytes: 25.9 GFLOP, 406 MB, 63.7 FLOP/B" in text
    assert "window: keys first - 64 to last + 64; no mask from last - 64 to first + 64" in text


def test_several_lengths(attngen, examples):
    """Full attention of 12 heads of 64 is bound by bytes while short, then by math."""
    command = ["explain", examples / "modernbert-base.yaml", "--kind", "global", "--batch", 1]
    lengths = [option for seq in (256, 4096, 8192) for option in ("--seq", seq)]
    lines = [" ".join(line.split()) for line in attngen(*command, *lengths).stdout.splitlines()]
    assert "B x S FLOP bytes FLOP/B at least, h100 by" in lines
    assert "1 x 256 201 MFLOP 1.59 MB 127 0.527 us bytes" in lines
    assert "1 x 4096 51.5 GFLOP 25.4 MB 2032 64.6 us math" in lines
    assert "1 x 8192 206 GFLOP 50.7 MB 4064 0.258 ms math" in lines
    assert any(line.startswith("batch 1, 256 x 256: 65536 of 65536") for line in lines)
    (values,) = json.loads(attngen(*command, *lengths, "--json").stdout)["kinds"]
    assert [(one["seq"], one["work"]["bound"]) for one in values["lengths"]] == [
        (256, "bytes"),
        (4096, "math"),
        (8192, "math"),
    ]
    assert values["seq"] == 256 and values["work"] == values["lengths"][0]["work"]


def test_arguments_and_assumptions(attngen, examples):
    text = attngen("explain", examples / "prefix-lm.yaml", "--seq", 256).stdout
    assert "drawn as if: prefix is 128" in text
    assert "prefix: (batch,), prefix length of each sequence, int32" in text
    assert "key_range: optional" in text


def test_what_a_call_decides_is_explained_without(attngen, tmp_path):
    path = tmp_path / "blocks.yaml"
    path.write_text("{name: x, heads: 2, head_dim: 64, blocks: {size: 64}}")
    result = attngen("explain", path, "--seq", 512)
    assert result.exit_code == 0
    assert "decided by each call: blocks; picture and figures are without" in result.stdout


def test_a_selection_is_weighed_against_dense_attention(attngen, examples):
    text = attngen("explain", examples / "deepseek-v3.2.yaml", "--seq", 1024, "--seq", 65536).stdout
    assert "not generated" not in text and "dense / sparse" in text
    rows = [line.split() for line in text.splitlines() if line.strip().startswith(("16 x 1024", "1 x 65536"))][-2:]
    short, long = (float(row[-1]) for row in rows)
    assert short == 1.0 and long > 5
    values = json.loads(attngen("explain", examples / "deepseek-v3.2.yaml", "--seq", 65536, "--json").stdout)
    (cost,) = values["kinds"][0]["sparse"]
    assert list(cost["parts"]) == ["indexer", "selection", "attention"]
    assert cost["total_ms"] == sum(cost["parts"].values()) < cost["dense_ms"]


def test_branches_are_drawn_one_by_one_and_weighed_together(attngen, examples, tmp_path):
    path = examples / "nsa-27b.yaml"
    text = attngen("explain", path, "--seq", 4096).stdout
    assert "in 3 branches whose results are summed by gates" in text
    assert "query i sees key j when 16 * j + 31 <= i" in text and "keys up to (last - 31) // 16" in text
    assert "batch 4, 4096 x 255" in text and "gates: (batch, heads, seq_q, 3)" in text
    values = json.loads(attngen("explain", path, "--seq", 4096, "--json").stdout)["kinds"][0]
    assert [branch["name"] for branch in values["branches"]] == ["compressed", "selected", "window"]
    assert len(values["sparse"][0]["parts"]) == 4
    assert attngen("explain", path, "--png", tmp_path / "nsa.png").exit_code == 0


def test_json(attngen, examples):
    values = json.loads(attngen("explain", examples / "gemma-3-4b.yaml", "--json", "--target", "a100").stdout)
    local, full = values["kinds"]
    assert local["seq"] == full["seq"] == 4096 and local["target"] == "a100"
    assert local["work"]["pairs"] < full["work"]["pairs"] == 4096 * 4097 // 2
    assert local["loops"] == ["causal and window: keys first - 1023 to last; no mask from last - 1023 to first"]


def test_png(attngen, examples, tmp_path):
    result = attngen("explain", examples / "modernbert-base.yaml", "--seq", 256, "--png", tmp_path / "sub" / "mask.png")
    assert result.exit_code == 0 and result.stdout.rstrip().endswith("mask.png")
    assert (tmp_path / "sub" / "mask.png").read_bytes().startswith(b"\x89PNG")


def test_png_without_matplotlib(attngen, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = attngen("explain", tiny, "--png", "mask.png")
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr == "attngen: --png needs matplotlib, which is not installed; pip install 'attngen[reports]'\n"


@pytest.mark.parametrize("name", ["streaming-llm", "longformer-base", "llama-4-scout", "packed-documents", "t5-base"])
def test_examples_of_every_field(attngen, examples, name):
    assert attngen("explain", examples / f"{name}.yaml", "--seq", 300).exit_code == 0


@pytest.mark.parametrize(("target", "says"), [("a100", "hopper: a100 is sm_80, and it is made of"), ("h100", None)])
def test_why_a_schedule_cannot_run(attngen, tiny, target, says):
    text = " ".join(attngen("explain", tiny, "--target", target).stdout.split())
    assert "hopper:" not in text if says is None else says in text and "so the portable schedule runs" in text

"""``attngen import``, ``generate``, ``show`` and ``db``: what they write, and what they leave alone."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from attngen.config import Config
from attngen.database import Trial, Versions, open_database
from attngen.problem import Problem
from attngen.source import template_digest
from attngen.spec import load_spec

CONFIG = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 4,
    "sliding_window": 4096,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


def test_import_prints_a_spec_and_says_how_windows_were_read(attngen, config, tmp_path):
    result = attngen("import", config)
    assert result.exit_code == 0
    assert "i - j < 4096: 4096 keys" in result.stderr
    (tmp_path / "out.yaml").write_text(result.stdout)
    assert load_spec(tmp_path / "out.yaml").kinds[0].window.left == 4095


def test_import_writes_a_file_once(attngen, config, tmp_path):
    assert attngen("import", config, "--out", "new/spec.yaml", "--name", "mine").exit_code == 0
    assert load_spec("new/spec.yaml").name == "mine"
    again = attngen("import", config, "--out", "new/spec.yaml")
    assert again.exit_code == 2 and "new/spec.yaml exists already; --force replaces it" in again.stderr
    assert load_spec("new/spec.yaml").name == "mine"
    assert attngen("import", config, "--out", "new/spec.yaml", "--force").exit_code == 0
    assert load_spec("new/spec.yaml").name == "mistral"


def test_import_as_json(attngen, config):
    values = json.loads(attngen("import", config, "--json").stdout)
    assert values["notes"] and values["spec"].startswith("name: mistral")


def test_generate(attngen, tiny, tmp_path):
    result = attngen("generate", tiny, "--out", "kernels", "--target", "a100", "--json")
    values = json.loads(result.stdout)
    assert values["target"] == "a100" and (tmp_path / "kernels" / "__init__.py").is_file()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    refused = attngen("generate", tiny, "--out", "full")
    assert refused.exit_code == 2 and "mine.txt" in refused.stderr


@pytest.fixture
def tuned(tiny):
    """A database with a measured, a modelled and a failed trial of the tiny spec."""
    spec = load_spec(tiny)
    db = open_database(shipped=False)
    versions = Versions(triton="3.6.0")
    config = Config(schedule="portable", BLOCK_M=64, BLOCK_N=32, num_warps=4, num_stages=2, loads="pointer")
    template = template_digest("forward", config)
    at = {"spec": spec.name, "kind": "attention", "template": template, "versions": versions, "target": "h100"}

    def problem(seq):
        return Problem("forward", spec.kinds[0].digest(), 2, seq, seq)

    db.record(Trial(problem(1024), config=config, status="ok", median_ms=0.02, spread_ms=0.001, samples=50, **at))
    db.record(Trial(problem(1024), config=config.replace(BLOCK_M=128), status="ok", median_ms=0.03, **at))
    db.record(Trial(problem(512), config=config, status="ok", source="model", median_ms=0.01, **at))
    db.record(Trial(problem(512), config=config.replace(BLOCK_N=64), status="spilled", error="<b>512 bytes</b>", **at))
    return db


def test_show(attngen, tiny, tuned):
    result = attngen("show", tiny)
    assert result.exit_code == 0
    first, second = (" ".join(line.split()) for line in result.stdout.splitlines()[3:5])
    assert first.startswith("attention 2 x 512 x 512 10.0 us") and "cost model, 2 trials" in first
    assert second.startswith("attention 2 x 1024 x 1024 20.0 us 1.00 us")
    assert "measured, 2 trials" in second and "portable 64x32 num_stages=2 num_warps=4 pointer" in second


def test_show_every_trial(attngen, tiny, tuned):
    text = attngen("show", "--trials").stdout
    assert "spilled" in text and "<b>512 bytes</b>" in text and "ok (model)" in text


def test_show_as_json(attngen, tiny, tuned):
    values = json.loads(attngen("show", tiny, "--json", "--trials").stdout)
    modelled, measured = values["tunings"]
    assert (modelled["source"], measured["source"]) == ("model", "measured")
    assert measured["ms"] == 0.02 and 0 < measured["roofline_share"] < 1
    assert measured["config"]["BLOCK_M"] == 64 and "this problem" in measured["provenance"]
    assert len(values["trials"]) == 4


def test_show_the_backward_pass(attngen, tiny, tuned):
    """Its kernels stand by name, each under its own roof; single elements have none."""
    (first, *_) = tuned.trials()
    for kernel in ("backward_q", "backward_elements"):
        problem = replace(first.problem, kernel=kernel)
        tuned.record(first.replace(problem=problem, source="model", median_ms=0.05, template=""))
    text = " ".join(attngen("show", tiny).stdout.split())
    assert "attention backward_q 2 x " in text and "attention backward_elements 2 x " in text
    rows = {row["kernel"]: row for row in json.loads(attngen("show", tiny, "--json").stdout)["tunings"]}
    forward = rows["forward"]
    ratio = rows["backward_q"]["tflops"] * 0.05 / (forward["tflops"] * forward["ms"])
    assert ratio == pytest.approx(2.5 * 3 / 7 * (first.problem.seq_k / forward["seq_k"]), rel=0.1)
    assert 0 < rows["backward_q"]["roofline_share"] < 1 and rows["backward_elements"]["tflops"] is None
    assert "attention backward_q" in attngen("show", "--trials").stdout


def test_show_says_which_backward_kernels_run(attngen, tiny, tuned):
    (first, *_) = (trial for trial in tuned.trials() if trial.source == "measured")
    times = {"backward_kv": 0.03, "backward_q": 0.02, "backward_fused": 0.04}
    for n, (kernel, ms) in enumerate(times.items()):
        assert "calls run the faster" not in attngen("show", tiny).stdout, n
        tuned.record(first.replace(problem=replace(first.problem, kernel=kernel), median_ms=ms, template=""))
    text = " ".join(attngen("show", tiny).stdout.split())
    assert "2 x 1024 x 1024: dq, dk and dv take 40.0 us by one kernel and 50.0 us by two; calls run the faster" in text


def test_show_nothing(attngen, tiny):
    result = attngen("show", tiny, "--target", "mi300x")
    assert result.exit_code == 0
    assert "nothing is tuned for tiny on mi300x; 'attngen tune SPEC --target mi300x' does that" in result.stdout


def test_show_a_gpu_that_only_the_database_knows(attngen, tiny, tuned):
    (trial, *_) = tuned.trials()
    tuned.record(trial.replace(target="h100-pcie"))
    values = json.loads(attngen("show", tiny, "--target", "h100-pcie", "--json").stdout)
    assert [row["roofline_share"] for row in values["tunings"]] == [None]


def test_show_as_a_page(attngen, tiny, tuned, tmp_path):
    assert attngen("show", tiny, "--html", "out/page.html").exit_code == 0
    page = (tmp_path / "out" / "page.html").read_text()
    assert "tiny on h100" in page and "2 x 1024 x 1024" in page
    assert "http" not in page and "<script" not in page

    class Balanced(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "br"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    parser = Balanced()
    parser.feed(page)
    assert parser.open == []


def test_tunings_go_out_and_in(attngen, tuned, tmp_path):
    assert attngen("db", "export", "--out", "texts").exit_code == 0
    assert (tmp_path / "texts" / "h100.yaml").is_file()
    result = attngen("db", "import", "texts/h100.yaml", "--db", "other.sqlite", "--json")
    assert json.loads(result.stdout) == {"found": 2, "new": 2}
    again = attngen("db", "import", "-", "--db", "other.sqlite", stdin=(tmp_path / "texts" / "h100.yaml").read_text())
    assert "2 trials found, 0 of them new" in again.stdout
    refused = attngen("db", "export", "--out", "texts")
    assert refused.exit_code == 2 and "exists already" in refused.stderr


def test_databases_merge_and_shrink(attngen, tuned, tmp_path):
    merged = attngen("db", "merge", tmp_path / "tunings.sqlite", "--db", "other.sqlite")
    assert "4 trials found, 4 of them new" in merged.stdout
    would = attngen("db", "prune", "--keep", "1", "--dry-run", "--db", "other.sqlite")
    assert "would drop 2 trials; 4 are there" in would.stdout
    spared = attngen("db", "prune", "--keep", "1", "--older-than", "1", "--db", "other.sqlite")
    assert "dropped 0 trials" in spared.stdout
    dropped = attngen("db", "prune", "--keep", "1", "--db", "other.sqlite", "--json")
    assert json.loads(dropped.stdout) == {"dropped": 2, "dry_run": False, "kept": 2}


def test_export_of_several_gpus_needs_a_folder(attngen, tuned):
    (trial, *_) = tuned.trials()
    tuned.record(trial.replace(target="a100"))
    result = attngen("db", "export")
    assert result.exit_code == 2 and "there are tunings for a100, h100; --out DIR" in result.stderr
    assert "target: a100" in attngen("db", "export", "--target", "a100").stdout

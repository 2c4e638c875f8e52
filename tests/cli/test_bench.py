"""``attngen bench`` on machines without a GPU: the reference is ours, and the timer counts."""

import json
import subprocess

import pytest

from attngen.bench.peers import PEERS, Peer
from attngen.bench.results import HostRow
from attngen.bench.run import Bench
from attngen.cli import bench as bench_command
from attngen.database import open_database
from attngen.target import get_target
from attngen.tuner.bench import Timing


class Turns:
    def race(self, calls):
        return [Timing(1.0 + n, 0.1, 30) for n in range(len(calls))]


@pytest.fixture
def cpu_bench(monkeypatch):
    """Measures on the CPU, where ours is the reference; some systems are not installed."""
    bench = Bench(get_target("h100"), Turns(), device="cpu", db=open_database())
    monkeypatch.setattr(bench_command, "gpu_bench", lambda db: (bench, "a CPU"))
    monkeypatch.setitem(PEERS, "fa3", Peer("fa3", "FA3", None, "no_such_fa3"))
    monkeypatch.setitem(PEERS, "fa4", Peer("fa4", "FA4", None, "no_such_package.fa4"))
    ordered = Peer("fa4-deterministic", "FA4 deterministic", None, "no_such_package.fa4", only_backward=True)
    monkeypatch.setitem(PEERS, "fa4-deterministic", ordered)
    monkeypatch.setitem(PEERS, "flex", Peer("flex", "FlexAttention", broken))  # else compiled, which takes long
    return bench


def broken(kind, inputs):
    raise RuntimeError("out of\nluck")


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(
        "{name: small, heads: 2, head_dim: 16, dtype: float32, kinds: {full: {}, causal: {causal: true}}, "
        "pattern: [full, causal]}"
    )
    return path


def rows_of(path):
    return [(row["case"], row["system"], row["ms"]) for row in json.loads(path.read_text())["rows"]]


def test_needs_a_gpu(attngen, tiny, monkeypatch):
    monkeypatch.setattr("attngen.target.detect", lambda *_: None)
    result = attngen("bench", tiny)
    assert result.exit_code == 2 and result.stdout == "" and "this machine has none" in result.stderr


def test_a_run(attngen, tiny, cpu_bench, tmp_path):
    result = attngen("bench", tiny, "--seq", 16, "--batch", 2, "--against", "sdpa,fa3", "--json", "out/r.json")
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "attention B2 S16: batch 2, 16 x 16" in text and "attngen 1.00 ms 0.1 ms" in text.replace("0.100", "0.1")
    assert "SDPA has no window" in text and "wrote out/r.json" in text
    values = json.loads((tmp_path / "out" / "r.json").read_text())
    assert values["device"] == "a CPU" and values["rows"][0]["system"] == "attngen"
    assert values["limits"]["bf16_tflops"] == 798 and values["hardware"]["target"] == "h100"


def test_the_share_of_the_limit_is_printed(attngen, small, cpu_bench):
    """16 queries and keys, 2 heads of 16: 4 tensors of 2 KB and 128 B of lse, at 3.006 TB/s."""
    result = attngen("bench", small, "--seq", 16, "--batch", 1, "--against", "none", "--cases", "full")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "at least 0.00277 us on h100, by bytes: 32.8 kFLOP, 8.32 kB, 3.94 FLOP/B" in lines
    assert any(line.startswith("system time spread TFLOP/s GB/s roofline") for line in lines)


def test_every_system_is_named(attngen, tiny, cpu_bench, tmp_path):
    """What is not installed changes no exit status; what cannot do a case says why in its row."""
    result = attngen("bench", tiny, "--seq", 16, "--against", "all", "--json", "r.json")
    assert result.exit_code == 0, result.output
    assert "FA3 is left out: no_such_fa3 is not installed" in result.stdout
    assert "FA4 is left out: no_such_package.fa4 is not installed" in result.stdout
    values = json.loads((tmp_path / "r.json").read_text())
    assert values["missing"] == {"fa3": "no_such_fa3 is not installed", "fa4": "no_such_package.fa4 is not installed"}
    rows = {row["system"]: row for row in values["rows"]}
    assert list(rows) == ["attngen", "sdpa", "cudnn", "fa2", "flex"]
    assert rows["sdpa"]["ms"] is None and rows["sdpa"]["note"] == "SDPA has no window"
    assert rows["flex"]["ms"] is None and rows["flex"]["note"] == "RuntimeError: out of luck"


def test_the_backward_pass(attngen, small, cpu_bench, tmp_path):
    """SDPA's gradients beside ours; rows of kernels that are not one name their configs by kernel."""
    options = ["--seq", 16, "--batch", 1, "--against", "sdpa,fa4-deterministic", "--backward", "--cases", "causal"]
    result = attngen("bench", small, *options, "--json", "r.json")
    assert result.exit_code == 0, result.output
    assert "causal backward B1 S16: batch 1, 16 x 16" in result.stdout
    assert rows_of(tmp_path / "r.json") == [
        ("causal backward B1 S16", "attngen", 1.0),
        ("causal backward B1 S16", "sdpa", 2.0),
    ]
    ours, _ = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert list(ours["config"]) == ["backward_rows", "backward_kv", "backward_q"]
    assert ours["provenance"].startswith("backward_rows: default for h100")


def test_a_suite_says_which_pass_it_is_of(attngen, cpu_bench):
    result = attngen("bench", "--suite", "dense", "--backward")
    assert result.exit_code == 2 and "--backward is for a SPEC; the cases of --suite backward are" in result.stderr


def test_json_alone(attngen, tiny, cpu_bench):
    result = attngen("bench", tiny, "--seq", 16, "--batch", 1, "--against", "none", "--json", "-")
    assert [row["system"] for row in json.loads(result.stdout)["rows"]] == ["attngen"]


def test_a_folder_gets_a_file_named_for_the_gpu(attngen, tiny, cpu_bench, tmp_path):
    (tmp_path / "there").mkdir()
    for folder in ("there", "new/"):
        result = attngen("bench", tiny, "--seq", 16, "--against", "none", "--json", folder)
        assert result.exit_code == 0 and f"wrote {folder.strip('/')}/h100.json" in result.stdout
        assert (tmp_path / folder / "h100.json").is_file()


def test_ours_failing_is_a_failure_and_not_the_end(attngen, small, cpu_bench, monkeypatch, tmp_path):
    from attngen.bench import run

    right = run._ours

    def wrong_once(bench, op, checks, inputs):
        if op.kind.causal:
            return right(bench, op, checks, inputs)
        raise AssertionError("off by one")

    monkeypatch.setattr("attngen.bench.run._ours", wrong_once)
    result = attngen("bench", small, "--seq", 16, "--against", "sdpa", "--json", "r.json")
    assert result.exit_code == 1 and "off by one" in result.stdout
    assert [(system, ms) for _, system, ms in rows_of(tmp_path / "r.json")] == [
        ("attngen", None),
        ("sdpa", 1.0),
        ("attngen", 1.0),
        ("sdpa", 2.0),
    ]


def test_a_run_that_is_ended_leaves_what_it_measured(attngen, small, cpu_bench, monkeypatch, tmp_path):
    class Ended(Turns):
        raced = 0

        def race(self, calls):
            self.raced += 1
            if self.raced == 2:
                raise KeyboardInterrupt
            return super().race(calls)

    monkeypatch.setattr(bench_command, "gpu_bench", lambda db: (Bench(cpu_bench.target, Ended(), "cpu"), "a CPU"))
    attngen("bench", small, "--seq", 16, "--batch", 1, "--against", "none", "--json", "r.json")
    assert rows_of(tmp_path / "r.json") == [("full B1 S16", "attngen", 1.0)]


def test_a_tuning_that_fails_is_noted(attngen, small, cpu_bench, monkeypatch, tmp_path):
    """The first of two problems has half of the time; what it leaves is the second's."""
    shares = []

    def tune(plan, problem, target, db, *, minutes, **options):
        shares.append(minutes)
        if len(shares) == 1:
            raise RuntimeError("no worker\nlives")

    monkeypatch.setattr("attngen.tuner.tune", tune)
    options = ["--seq", 16, "--batch", 1, "--against", "none", "--tune", 3, "--json", "r.json"]
    result = attngen("bench", small, *options)
    assert result.exit_code == 0, result.output
    note = "not tuned: small, full, 1 x 16 x 16: RuntimeError: no worker lives"
    assert note in result.stdout and shares == [pytest.approx(1.5, abs=0.1), pytest.approx(3.0, abs=0.1)]
    values = json.loads((tmp_path / "r.json").read_text())
    assert values["notes"] == [note] and [row["ms"] for row in values["rows"]] == [1.0, 1.0]


def test_a_first_call_that_fails_is_noted(attngen, tiny, cpu_bench, monkeypatch, tmp_path):
    def first_calls(*arguments):
        raise subprocess.TimeoutExpired("python", 300.0)

    monkeypatch.setattr("attngen.bench.host.first_calls", first_calls)
    monkeypatch.setattr("attngen.bench.host.measure_host", lambda bench, peers: [HostRow("attngen", 30.0)])
    result = attngen("bench", tiny, "--seq", 16, "--against", "none", "--host", "--json", "r.json")
    assert result.exit_code == 0 and "30.0 us" in result.stdout
    (row,) = json.loads((tmp_path / "r.json").read_text())["host"]
    assert row["call_us"] == 30.0 and row["note"].startswith("no first call: ") and "first_cold_s" not in row


def test_some_cases_again(attngen, small, cpu_bench, tmp_path, monkeypatch):
    """A second run of one case takes the place of its rows; the others stay, of the run that they were."""
    options = ["--seq", 16, "--batch", 1, "--against", "sdpa"]
    names = iter(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])
    monkeypatch.setattr("attngen.cli.bench.new_run_id", lambda: next(names))
    assert attngen("bench", small, *options, "--json", "r.json").exit_code == 0
    result = attngen("bench", small, *options, "--cases", "CAUSAL", "--merge", "r.json")
    assert result.exit_code == 0, result.output
    assert "causal B1 S16" in result.stdout and "full B1 S16" not in result.stdout and "wrote r.json" in result.stdout
    values = json.loads((tmp_path / "r.json").read_text())
    assert [(row["case"], row["system"], row["run"][:10]) for row in values["rows"]] == [
        ("full B1 S16", "attngen", "2026-01-01"),
        ("full B1 S16", "sdpa", "2026-01-01"),
        ("causal B1 S16", "attngen", "2026-01-02"),
        ("causal B1 S16", "sdpa", "2026-01-02"),
    ]
    assert [run["id"][:10] for run in values["runs"]] == ["2026-01-01", "2026-01-02"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"device": "another", "rows": []}', "those results are of another, and this machine has a CPU"),
        ("[]", "r.json: not results of 'attngen bench'"),
        ("{", "r.json: not JSON"),
        (None, "r.json: No such file"),
    ],
)
def test_merging_into_what_is_no_such_file(attngen, small, cpu_bench, monkeypatch, tmp_path, text, message):
    """Said before anything is measured."""
    monkeypatch.setattr(bench_command, "_measure", lambda *_: pytest.fail("measured"))
    if text is not None:
        (tmp_path / "r.json").write_text(text)
    result = attngen("bench", small, "--seq", 16, "--merge", "r.json")
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1


def test_no_such_case(attngen, small, cpu_bench):
    result = attngen("bench", small, "--seq", 16, "--batch", 1, "--cases", "fulll")
    assert result.exit_code == 2
    assert result.stderr == "attngen: no case matches 'fulll'; there are full B1 S16, causal B1 S16\n"

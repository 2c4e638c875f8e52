"""Results as JSON: what a file says of its run, and new rows put in place of old ones."""

import json

import pytest

from attngen.bench.results import HostRow, Row, Run, as_json, merged, read, with_runs, write
from attngen.errors import UsageError

ROWS = [
    Row("s", "c", "attngen", 0.12345678, 0.01, 600.0, 1000.0, 0.8, "math", config={"BLOCK_M": 128}, provenance="tuned"),
    Row("s", "c", "fa3", None, note="no"),
]


def run(name, **changes):
    values = {"device": "NVIDIA H100", "versions": {"torch": "2.11.0"}, "limits": {"bf16_tflops": 798.0}}
    return Run(**{**values, **changes}, id=name)


def test_the_file_of_one_run():
    name = "2026-11-23T21:05:07Z"
    values = as_json(run(name, missing={"fa4": "not here"}), ROWS, [HostRow("attngen", 30.0)])
    assert values["device"] == "NVIDIA H100" and values["date"] == "2026-11-23" and values["clocks"] is None
    assert values["versions"] == {"torch": "2.11.0"} and values["missing"] == {"fa4": "not here"}
    assert values["rows"] == [
        {
            "suite": "s",
            "case": "c",
            "system": "attngen",
            "ms": 0.123457,
            "spread": 0.01,
            "tflops": 600.0,
            "gbps": 1000.0,
            "roofline": 0.8,
            "bound": "math",
            "config": {"BLOCK_M": 128},
            "provenance": "tuned",
            "run": name,
        },
        {"suite": "s", "case": "c", "system": "fa3", "ms": None, "note": "no", "run": name},
    ]
    assert values["host"] == [{"system": "attngen", "call_us": 30.0, "run": name}]
    assert [(one["id"], one["missing"]) for one in values["runs"]] == [(name, {"fa4": "not here"})]


def test_clocks_while_measured():
    rows = [Row("s", case, "attngen", 1.0, sm_mhz=mhz) for case, mhz in (("a", 1980.0), ("b", 1545.0), ("c", None))]
    clocks = as_json(run("a", clocks={"clocks.sm": 345.0}), rows)["clocks"]
    assert clocks == {"clocks.sm": 345.0, "clocks.sm.slowest_case": 1545.0, "clocks.sm.fastest_case": 1980.0}


def test_merging_replaces_what_was_measured_again():
    old = as_json(
        run("a", versions={"torch": "1"}),
        [Row("s", "c", "attngen", 2.0), Row("s", "c", "fa3", 1.0), Row("s", "d", "attngen", 4.0)],
        [HostRow("attngen", 30.0), HostRow("fa3", 80.0)],
    )
    new = as_json(run("b"), [Row("s", "e", "attngen", 5.0), Row("s", "c", "attngen", 1.5)], [HostRow("attngen", 20.0)])
    both = merged(old, new)
    assert [(row["case"], row["system"], row["ms"], row["run"]) for row in both["rows"]] == [
        ("c", "attngen", 1.5, "b"),
        ("c", "fa3", 1.0, "a"),
        ("d", "attngen", 4.0, "a"),
        ("e", "attngen", 5.0, "b"),
    ]
    assert [(row["system"], row["call_us"], row["run"]) for row in both["host"]] == [
        ("attngen", 20, "b"),
        ("fa3", 80, "a"),
    ]
    assert [one["id"] for one in both["runs"]] == ["a", "b"] and both["versions"] == {"torch": "2.11.0"}
    assert merged(old, as_json(run("b"), []))["host"] == old["host"]


def test_a_run_of_which_nothing_is_left_is_forgotten():
    old = as_json(run("a"), [Row("s", "c", "attngen", 2.0)])
    assert [one["id"] for one in merged(old, as_json(run("b"), [Row("s", "c", "attngen", 1.0)]))["runs"]] == ["b"]


def test_merging_wants_the_same_gpu():
    with pytest.raises(UsageError, match="results are of NVIDIA H100, and this machine has NVIDIA H200"):
        merged(as_json(run("a"), []), as_json(run("b", device="NVIDIA H200"), []))


def test_older_files_are_of_one_run():
    old = {"device": "x", "date": "2026-11-23", "versions": {"torch": "1"}, "rows": [{"system": "attngen"}]}
    values = with_runs(old)
    assert values["rows"] == [{"system": "attngen", "run": "2026-11-23"}]
    assert values["runs"] == [{"id": "2026-11-23", "versions": {"torch": "1"}}] and "run" not in old["rows"][0]


def test_reading(tmp_path):
    path = tmp_path / "folder" / "h100.json"
    values = as_json(run("a"), ROWS)
    write(path, values)
    assert read(path) == values
    path.write_text(json.dumps({"rows": 3}))
    with pytest.raises(UsageError, match="not results of 'attngen bench'"):
        read(path)
    path.write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        read(path)

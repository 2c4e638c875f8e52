"""Results as tables, and the tables in a README."""

import json

import pytest

from attngen.bench.tables import main, markdown, put_between
from attngen.errors import UsageError

RESULTS = {
    "device": "NVIDIA H100 80GB HBM3",
    "versions": {"torch": "2.11.0", "triton": "3.6.0"},
    "rows": [
        {
            "suite": "dense-forward",
            "case": "D64 full S2048",
            "system": "attngen",
            "ms": 1.0,
            "tflops": 482.4,
            "roofline": 0.604,
            "bound": "math",
        },
        {"suite": "dense-forward", "case": "D64 full S2048", "system": "fa3", "ms": 1.1, "tflops": 438.0},
        {"suite": "dense-forward", "case": "D64 full S2048", "system": "flex", "ms": None, "note": "no"},
        {"suite": "window-forward", "case": "GPT-OSS S16384", "system": "flex", "ms": 0.679, "tflops": 400.0},
        {
            "suite": "window-forward",
            "case": "GPT-OSS S16384",
            "system": "attngen",
            "ms": 0.262,
            "tflops": 900.0,
            "roofline": 0.77,
        },
        {"suite": "window-forward", "case": "Mistral S32768", "system": "attngen", "ms": 3.0, "roofline": 0.86},
    ],
    "host": [
        {"system": "attngen", "call_us": 31.25, "first_cold_s": 1.5, "first_warm_s": 0.25},
        {"system": "fa3", "call_us": 90.1},
    ],
}
TABLES = """\
NVIDIA H100 80GB HBM3; torch 2.11.0, triton 3.6.0. Medians of interleaved rounds of one run.

**Dense forward, TFLOP/s**

| case | attngen | FA3 | of the limit | speed / FA3 |
| --- | ---: | ---: | ---: | ---: |
| D64 full S2048 | 482 | 438 | 60% math | 1.10 |

**Windows forward, ms**

| case | attngen | FlexAttention | of the limit | speed / FlexAttention |
| --- | ---: | ---: | ---: | ---: |
| GPT-OSS S16384 | 0.262 | 0.679 | 77% | 2.59 |
| Mistral S32768 | 3 | - | 86% | - |

**Cost of a call**

| system | host time of a call, us | first call, cold cache, s | warm cache, s |
| --- | ---: | ---: | ---: |
| attngen | 31.2 | 1.5 | 0.25 |
| FA3 | 90.1 | - | - |"""


def test_tables():
    assert markdown(RESULTS) == TABLES


def test_speeds_are_compared_within_a_run():
    """FA3 was measured in an earlier run than ours: its figure stands, marked, and no ratio is made of it."""
    rows = [
        {"suite": "dense-forward", "case": "D64 full S2048", "system": "attngen", "ms": 1.0, "tflops": 482, "run": "b"},
        {"suite": "dense-forward", "case": "D64 full S2048", "system": "fa3", "ms": 1.1, "tflops": 438, "run": "a"},
        {"suite": "dense-forward", "case": "D64 full S2048", "system": "flex", "ms": 2, "tflops": 241, "run": "b"},
    ]
    text = markdown({**RESULTS, "rows": rows, "host": [], "runs": [{"id": "a"}, {"id": "b"}]})
    assert "rounds of 2 runs; speeds are compared within one, and \\* marks" in text
    assert "| D64 full S2048 | 482 | 438\\* | 241 | - | - | 2.00 |" in text


def test_what_was_missing_and_how_fast_the_chip_ran():
    clocks = {"clocks.sm.slowest_case": 1545.0, "clocks.sm.fastest_case": 1980.0}
    text = markdown({**RESULTS, "clocks": clocks, "missing": {"fa4": "x is not installed", "fa3": "y"}})
    assert "SM clock 1545 to 1980 MHz while measured. Not measured, because not installed: FA4.\n" in text


def test_suites_stand_in_the_order_of_the_cases():
    rows = [
        {"suite": suite, "case": "c", "system": "attngen", "ms": 1.0}
        for suite in ("mine", "window-forward", "dense-forward")
    ]
    text = markdown({**RESULTS, "rows": rows})
    assert text.index("**Dense forward") < text.index("**Windows forward") < text.index("**mine, ms**")


def test_the_readme_keeps_what_stands_around(tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n\n<!-- benchmarks:begin -->\nold\n<!-- benchmarks:end -->\n\nThe end.\n")
    results = tmp_path / "h100.json"
    results.write_text(json.dumps(RESULTS))
    other = tmp_path / "h100-verify.json"
    other.write_text("[]")
    for _ in range(2):  # again changes nothing
        main([str(readme), str(other), str(results)])
        text = readme.read_text()
        assert text == f"# Title\n\n<!-- benchmarks:begin -->\n{TABLES}\n<!-- benchmarks:end -->\n\nThe end.\n"
    assert capsys.readouterr().err == f"{other} has no benchmark rows\n" * 2


def test_the_picture_beside_the_results(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- benchmarks:begin -->\n<!-- benchmarks:end -->\n")
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    (folder / "h100.json").write_text(json.dumps(RESULTS))
    (folder / "h100-roofline.svg").write_text("<svg/>")
    main([str(readme), str(folder / "h100.json")])
    assert "](benchmarks/results/h100-roofline.svg)\n<!-- benchmarks:end -->" in readme.read_text()


@pytest.mark.parametrize(
    "text", ["", "<!-- benchmarks:end --><!-- benchmarks:begin -->", "<!-- benchmarks:begin -->" * 2]
)
def test_markers_must_be_there_once(text):
    with pytest.raises(UsageError, match="needs one line"):
        put_between(text, "body")

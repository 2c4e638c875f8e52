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

| case | attngen | FA3 | roofline | speed / FA3 |
| --- | ---: | ---: | ---: | ---: |
| D64 full S2048 | 482 | 438 | 60% | 1.10 |

**Windows forward, ms**

| case | attngen | FlexAttention | roofline | speed / FlexAttention |
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


def test_the_readme_keeps_what_stands_around(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n\n<!-- benchmarks:begin -->\nold\n<!-- benchmarks:end -->\n\nThe end.\n")
    results = tmp_path / "h100.json"
    results.write_text(json.dumps(RESULTS))
    for _ in range(2):  # again changes nothing
        main([str(readme), str(results)])
        text = readme.read_text()
        assert text == f"# Title\n\n<!-- benchmarks:begin -->\n{TABLES}\n<!-- benchmarks:end -->\n\nThe end.\n"


@pytest.mark.parametrize(
    "text", ["", "<!-- benchmarks:end --><!-- benchmarks:begin -->", "<!-- benchmarks:begin -->" * 2]
)
def test_markers_must_be_there_once(text):
    with pytest.raises(UsageError, match="needs one line"):
        put_between(text, "body")

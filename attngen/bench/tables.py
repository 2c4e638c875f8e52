"""Benchmark results as Markdown tables, and those tables in the README between two markers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attngen.bench.cases import DENSE, WINDOW
from attngen.errors import UsageError

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
TITLES = {
    "attngen": "attngen",
    "fa4": "FA4",
    "fa3": "FA3",
    "cudnn": "cuDNN SDPA",
    "flex": "FlexAttention",
    "fa2": "FA2 (SDPA flash)",
    "sdpa": "SDPA",
}
ORDER = tuple(TITLES)
SUITES = {
    DENSE: ("Dense forward, TFLOP/s", "tflops"),
    WINDOW: ("Windows forward, ms", "ms"),
}
RATIOS = ("fa3", "flex")  # systems that our speed is divided by


def markdown(results: dict[str, Any]) -> str:
    """Every suite of one results file, then the cost of calls."""
    versions = ", ".join(f"{name} {value}" for name, value in results.get("versions", {}).items())
    parts = [f"{results['device']}; {versions}. Medians of interleaved rounds of one run."]
    for suite in dict.fromkeys(row["suite"] for row in results["rows"]):
        title, measure = SUITES.get(suite, (f"{suite}, ms", "ms"))
        rows = [row for row in results["rows"] if row["suite"] == suite]
        parts.append(f"**{title}**\n\n{_suite_table(rows, measure)}")
    if results.get("host"):
        parts.append(f"**Cost of a call**\n\n{_host_table(results['host'])}")
    return "\n\n".join(parts)


def put_between(text: str, body: str, begin: str = BEGIN, end: str = END) -> str:
    """``text`` with what stands between the two markers replaced by ``body``."""
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise UsageError(f"the file needs one line '{begin}' and after it one line '{end}'")
    head, rest = text.split(begin)
    _, tail = rest.split(end)
    return f"{head}{begin}\n{body}\n{end}{tail}"


def _suite_table(rows: list[dict[str, Any]], measure: str) -> str:
    """A line for each case: our figure, the peers', and how many times their speed ours is."""
    by_case: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_case.setdefault(row["case"], {})[row["system"]] = row
    timed = {row["system"] for row in rows if row.get("ms")}
    systems = sorted(timed, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    ratios = [name for name in RATIOS if name in timed and "attngen" in timed]
    head = ["case", *(TITLES.get(name, name) for name in systems), "roofline"]
    head += [f"speed / {TITLES[name]}" for name in ratios]
    lines = []
    for case, found in by_case.items():
        cells = [_figure(found.get(name, {}).get(measure)) for name in systems]
        share = found.get("attngen", {}).get("roofline")
        cells.append("-" if share is None else f"{share:.0%}")
        lines.append([case, *cells, *(_ratio(found, name) for name in ratios)])
    return _table(head, lines)


def _ratio(found: dict[str, dict[str, Any]], peer: str) -> str:
    ours, theirs = found.get("attngen", {}).get("ms"), found.get(peer, {}).get("ms")
    return f"{theirs / ours:.2f}" if ours and theirs else "-"


def _host_table(rows: list[dict[str, Any]]) -> str:
    head = ["system", "host time of a call, us", "first call, cold cache, s", "warm cache, s"]
    names = ("call_us", "first_cold_s", "first_warm_s")
    lines = [
        [TITLES.get(row["system"], row["system"]), *(_figure(row.get(name)) for name in names)]
        for row in rows
        if row.get("call_us")
    ]
    used = [n for n in range(len(head)) if any(line[n] != "-" for line in lines)]
    return _table([head[n] for n in used], [[line[n] for n in used] for line in lines])


def _figure(value: float | None) -> str:
    """Three digits; none for what could not run."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rules = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rules, *lines))


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m attngen.bench.tables README.md benchmarks/results/h100.json ...``"""
    readme, *files = sys.argv[1:] if arguments is None else arguments
    if not files:
        raise SystemExit("usage: python -m attngen.bench.tables README.md RESULTS.json ...")
    body = "\n\n".join(markdown(json.loads(Path(file).read_text(encoding="utf-8"))) for file in files)
    path = Path(readme)
    path.write_text(put_between(path.read_text(encoding="utf-8"), body), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Benchmark results as Markdown tables, and those tables in the README between two markers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attngen.bench.cases import SUITES
from attngen.bench.results import is_results, read, with_runs
from attngen.errors import UsageError

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
TITLES = {
    "attngen": "attngen",
    "fa4": "FA4",
    "fa4-deterministic": "FA4 deterministic",
    "fa3": "FA3",
    "cudnn": "cuDNN SDPA",
    "flex": "FlexAttention",
    "fa2": "FA2 (SDPA flash)",
    "sdpa": "SDPA",
    "deep_gemm": "DeepGEMM",
    "deep_gemm+topk": "DeepGEMM + torch.topk",
    "flash_mla": "FlashMLA",
    "dense": "attngen, all keys",
}
ORDER = tuple(TITLES)
# Systems that our speed is divided by.
RATIOS = ("fa4", "fa4-deterministic", "fa3", "flex", "deep_gemm", "deep_gemm+topk", "flash_mla", "dense")
ROOFLINE = "-roofline.svg"  # after a results file's name: its picture
ELSEWHEN = "\\*"  # after a figure of another run than ours


def markdown(results: dict[str, Any]) -> str:
    """Every suite of one results file, then the cost of calls."""
    results = with_runs(results)
    suites = {suite.name: suite for suite in SUITES["all"]}
    parts = [_about(results)]
    for name in dict.fromkeys([*suites, *(row["suite"] for row in results["rows"])]):
        rows = [row for row in results["rows"] if row["suite"] == name]
        title, measure = (suites[name].title, suites[name].measure) if name in suites else (f"{name}, ms", "ms")
        if rows:
            parts.append(f"**{title}**\n\n{_suite_table(rows, measure)}")
    if results.get("host"):
        parts.append(f"**Cost of a call**\n\n{_host_table(results['host'])}")
    return "\n\n".join(parts)


def _about(results: dict[str, Any]) -> str:
    """What the figures are of, in a paragraph."""
    runs = results["runs"]
    known = {name: value for run in runs for name, value in run.get("versions", {}).items()}
    versions = ", ".join(f"{name} {value}" for name, value in known.items())
    sentences = [f"{results['device']}; {versions}."]
    if len(runs) == 1:
        sentences.append("Medians of interleaved rounds of one run.")
    else:
        sentences.append(
            f"Medians of interleaved rounds of {len(runs)} runs; speeds are compared within one, and {ELSEWHEN} marks "
            "figures of another than attngen's."
        )
    clocks = [run["clocks"] for run in runs if "clocks.sm.slowest_case" in (run.get("clocks") or {})]
    if clocks:
        slowest = min(of_run["clocks.sm.slowest_case"] for of_run in clocks)
        fastest = max(of_run["clocks.sm.fastest_case"] for of_run in clocks)
        sentences.append(f"SM clock {slowest:.0f} to {fastest:.0f} MHz while measured.")
    measured = {row["system"] for row in results["rows"]}
    absent = [TITLES.get(name, name) for name in results.get("missing", {}) if name not in measured]
    if absent:
        sentences.append(f"Not measured, because not installed: {', '.join(absent)}.")
    return " ".join(sentences)


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
    head = ["case", *(TITLES.get(name, name) for name in systems), "of the limit"]
    head += [f"speed / {TITLES[name]}" for name in ratios]
    lines = []
    for case, found in by_case.items():
        ours = found.get("attngen", {})
        cells = [_cell(found.get(name, {}), measure, ours.get("run")) for name in systems]
        share = ours.get("roofline")
        cells.append("-" if share is None else f"{share:.0%} {ours.get('bound', '')}".strip())
        lines.append([case, *cells, *(_ratio(found, name) for name in ratios)])
    return _table(head, lines)


def _cell(row: dict[str, Any], measure: str, run: str | None) -> str:
    value = row.get(measure)
    elsewhen = value is not None and run is not None and row["run"] != run
    return _figure(value) + (ELSEWHEN if elsewhen else "")


def _ratio(found: dict[str, dict[str, Any]], peer: str) -> str:
    """How many times the peer's speed ours is, where both were measured in one run."""
    ours, theirs = found.get("attngen", {}), found.get(peer, {})
    if not ours.get("ms") or not theirs.get("ms") or ours["run"] != theirs["run"]:
        return "-"
    return f"{theirs['ms'] / ours['ms']:.2f}"


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
    """``python -m attngen.bench.tables README.md benchmarks/results/*.json``

    The pictures that lie beside the results are shown too; other JSON is passed over, and named.
    """
    readme, *files = sys.argv[1:] if arguments is None else arguments
    if not files:
        raise SystemExit("usage: python -m attngen.bench.tables README.md RESULTS.json ...")
    path = Path(readme)
    tables = []
    for file in map(Path, files):
        if not is_results(json.loads(file.read_text(encoding="utf-8"))):
            print(f"{file} has no benchmark rows", file=sys.stderr)
            continue
        results = read(file)
        tables.append(markdown(results))
        picture = file.with_name(f"{file.stem}{ROOFLINE}")
        if picture.is_file():
            link = os.path.relpath(picture, path.parent)
            tables.append(f"![The roofline of {results['device']}, and where each case stands under it]({link})")
    path.write_text(put_between(path.read_text(encoding="utf-8"), "\n\n".join(tables)), encoding="utf-8")


if __name__ == "__main__":
    main()

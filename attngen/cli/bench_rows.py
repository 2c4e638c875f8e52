"""What ``attngen bench`` prints: a table for each case, and one of what calls cost the host."""

from __future__ import annotations

from attngen.bench.cases import AnyCase
from attngen.bench.results import HostRow, Row
from attngen.cli.output import print_table, say
from attngen.report.quantities import digits, duration
from attngen.report.work import Work, floor_in_words
from attngen.target import Target


def print_case(case: AnyCase, rows: list[Row], work: Work | None, target: Target) -> None:
    """One case: a line for each system, its share of the chip's limit, and how many times its speed ours is."""
    ours = next((row.ms for row in rows if row.system == "attngen"), None)
    columns = ["system", "time", "spread", "TFLOP/s", "GB/s", "roofline", "our speed", ""]
    lines = [
        [
            row.system,
            duration(row.ms),
            duration(row.spread),
            "" if row.tflops is None else digits(row.tflops),
            "" if row.gbps is None else digits(row.gbps),
            "" if row.roofline is None else f"{row.roofline:.0%}",
            f"{row.ms / ours:.2f} x" if row.ms and ours and row.system != "attngen" else "",
            row.note,
        ]
        for row in rows
    ]
    clock = next((f"; SM clock {row.sm_mhz:.0f} MHz" for row in rows if row.sm_mhz), "")
    say(f"{case.name}: {case.sizes}", "bold")
    if work is not None:
        say(f"{floor_in_words(work, target)}{clock}")
    print_table(columns, lines, right=columns[1:7], wide=[""])
    say()


def print_host(rows: list[HostRow]) -> None:
    if not rows:
        return
    columns = ["system", "host time of a call", "first call, cold cache", "warm cache", ""]
    lines = [
        [
            row.system,
            "-" if row.call_us is None else f"{row.call_us:.1f} us",
            "" if row.first_cold_s is None else f"{row.first_cold_s:.2f} s",
            "" if row.first_warm_s is None else f"{row.first_warm_s:.2f} s",
            row.note,
        ]
        for row in rows
    ]
    print_table(columns, lines, right=columns[1:4], wide=[""])
    say()

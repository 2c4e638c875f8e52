"""What commands print: tables for people, JSON for programs, progress on stderr for whoever watches."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 160  # columns where nobody's terminal says
UNLIMITED = 10_000


def console(stderr: bool = False) -> Console:
    """Where tables go. Piped output is wide, plain and never cut to 80 columns."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else PIPED_WIDTH)


def watched(quiet: bool) -> bool:
    """Whether somebody sees progress."""
    return not quiet and sys.stderr.isatty()


def say(text: str = "", style: str = "") -> None:
    """One paragraph on stdout; square brackets in it are text."""
    console().print(Text(text, style=style))


def print_json(value: Any) -> None:
    """``value`` as JSON that every parser reads: numbers that JSON lacks become null."""
    print(json.dumps(_plain(value), indent=2, allow_nan=False))


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = (), wide: Sequence[str] = ()
) -> None:
    """A plain table on stdout. Columns in ``right`` are numbers; where the terminal is too narrow for all, those in
    ``wide`` follow beneath, a paragraph for each row, named by what stands left of them."""
    out = console()
    whole = _table(columns, rows, right)
    natural = out.measure(whole, options=out.options.update(max_width=UNLIMITED)).maximum
    if natural <= out.width or not wide:
        out.print(whole)
        return
    narrow = [n for n, name in enumerate(columns) if name not in wide]
    out.print(_table([columns[n] for n in narrow], [[row[n] for n in narrow] for row in rows], right))
    first = next(n for n, name in enumerate(columns) if name in wide or name in right)
    for row in rows:
        cells = [f"{name} {cell}".strip() for name, cell in zip(columns, row, strict=True) if name in wide and cell]
        out.print(Text(f"{' '.join(row[:first])}: {'; '.join(cells)}"))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> Table:
    """A rule under the head, and nothing else but space."""
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True, header_style="bold")
    for name in columns:
        out.add_column(Text(name), justify="right" if name in right else "left", no_wrap=True)
    for row in rows:
        out.add_row(*(Text(cell) for cell in row))
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

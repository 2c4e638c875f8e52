"""What commands print: tables for people, JSON for programs, progress on stderr for whoever watches."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 160  # columns where nobody's terminal says


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


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[str] = ()) -> Table:
    """A plain table: a rule under its head; the columns in ``right`` are numbers."""
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for name in columns:
        out.add_column(name, justify="right" if name in right else "left", no_wrap=name in right)
    for row in rows:
        out.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

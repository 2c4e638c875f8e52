"""A progress bar for people at a terminal; silence for everything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from attngen.tuner.result import Progress, Reporter


@contextmanager
def progress_bar(title: str, console: Console | None = None) -> Iterator[Reporter]:
    """``with progress_bar("local") as report:`` gives what tune() takes as ``progress``; shown on a terminal only."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        row = bar.add_task(title, total=None, state="starting")

        def report(progress: Progress) -> None:
            bar.update(row, completed=progress.tried, total=progress.total, state=state_of(progress))

        yield report


def state_of(progress: Progress) -> str:
    """The words beside the bar."""
    parts = [progress.doing] if progress.doing else []
    if progress.best is not None:
        parts.append(f"best {progress.best.median_ms:.4g} ms, {progress.best.config.label()}")
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.limit_seconds is not None:
        parts.append(f"{max(progress.limit_seconds - progress.seconds, 0):.0f} s left")
    return "; ".join(parts) or "starting"

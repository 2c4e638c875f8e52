"""Progress is for terminals; the summary is one line."""

from __future__ import annotations

import io

from fake_bench import PROBLEM, every_config
from rich.console import Console

from attngen.database import Trial
from attngen.tuner import Progress, TuningResult, progress_bar
from attngen.tuner.progress import state_of


def trial(ms):
    return Trial(PROBLEM, "h100", every_config()[0], "ok", median_ms=ms)


def progress(**changes):
    values = dict(tried=3, known=0, total=9, failed=1, best=trial(0.25), seconds=4.0, limit_seconds=60.0)
    return Progress(**{**values, **changes})


def test_nothing_is_written_without_a_terminal():
    out = io.StringIO()
    with progress_bar("local", Console(file=out)) as report:
        report(progress())
    assert out.getvalue() == ""


def test_a_terminal_sees_the_best_so_far():
    out = io.StringIO()
    with progress_bar("local", Console(file=out, force_terminal=True, width=200)) as report:
        report(progress())
    assert "local" in out.getvalue() and "best 0.25 ms" in out.getvalue()
    assert state_of(progress(doing="timing 4 finalists in turns")).startswith("timing 4 finalists in turns; best 0.25")
    assert state_of(progress()).endswith("1 failed; 56 s left")


def test_a_result_is_one_line():
    values = dict(problem=PROBLEM, target="h100", source="measured", finalists=(), tried=40, known=2, failures=())
    values.update(space=300, stopped="trials", seconds=1.0, study="s")
    result = TuningResult(best=trial(0.2), default=trial(0.25), **values)
    assert result.speedup == 1.25
    assert result.summary().startswith("0.2 ms measured on h100, 1.25 times the default: ? BLOCK_M=16")
    assert result.summary().endswith("(40 tried, 2 known before, of 300)")
    assert TuningResult(best=None, default=None, **values).summary() == "no config worked: 40 tried on h100"

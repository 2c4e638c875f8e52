"""What is recorded is kept, whoever else writes and however a writer ends."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from datetime import timedelta

import pytest
from database_examples import START, problem, trial
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.schema import CreateTable

from attngen.config import Config
from attngen.database import open_database
from attngen.database.models import TrialRow
from attngen.errors import UsageError
from attngen.target import TARGETS

WRITER = """
    import sys
    sys.path.insert(0, {here!r})
    from database_examples import trial
    from attngen.database import open_database
    db = open_database({path!r})
    for i in range({count}):
        db.record(trial(1 + i, study={study!r}))
        print(i, flush=True)
"""


def writer(path, study, count):
    code = textwrap.dedent(WRITER).format(here=os.path.dirname(__file__), path=str(path), count=count, study=study)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)


def test_a_trial_comes_back_whole(db):
    full = trial(error="", final=True, compile_seconds=0.25)
    failed = trial(None, status="compile_error", error="line one\n  line two\x1b[0m", median_ms=None)
    db.record(full)
    db.record(failed)
    assert db.trials() == [full, failed]
    assert failed.error == "line one line two [0m"


def test_recording_twice_keeps_one(db):
    assert db.record_all([trial(), trial()]) == 1
    assert db.record_all([trial(), trial(0.7)]) == 1
    assert len(db.trials()) == 2


def test_trials_are_filtered_by_everything_given(db):
    other = problem(seq=1024)
    db.record_all([trial(), trial(0.6, "a100"), trial(0.7, at=other, study="s2"), trial(0.8, source="model")])
    assert [t.median_ms for t in db.trials(problem(), target="h100", source="measured")] == [0.5]
    assert [t.median_ms for t in db.trials(study="s2")] == [0.7]
    assert db.trials(digests=["ffff"]) == []
    assert db.targets() == ["a100", "h100"]


def test_two_processes_write_at_once(tmp_path):
    path = tmp_path / "shared.sqlite"
    writers = [writer(path, f"w{n}", 60) for n in range(2)]
    assert [w.wait(timeout=60) for w in writers] == [0, 0]
    found = open_database(str(path)).trials()
    assert len(found) == 120 and {t.study for t in found} == {"w0", "w1"}
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_killed_writer_loses_nothing_it_reported(tmp_path):
    path = tmp_path / "killed.sqlite"
    process = writer(path, "w", 100000)
    reported = [int(process.stdout.readline()) for _ in range(25)]
    os.kill(process.pid, signal.SIGKILL)
    reported += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    process.wait(timeout=30)
    db = open_database(str(path))
    assert {t.median_ms for t in db.trials()} >= {1.0 + i for i in reported}
    db.record(trial(0.125))  # and it can be written again
    assert db.best(problem(), "h100").median_ms == 0.125


def test_a_forked_child_may_use_it(db):
    db.record(trial())
    child = os.fork()
    if child == 0:
        try:
            db.record(trial(0.25))
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(db.trials()) == 2


def test_reading_creates_nothing(tmp_path):
    db = open_database(str(tmp_path / "none" / "t.sqlite"), shipped=False)
    assert db.trials() == [] and db.lookup(problem(), TARGETS["h100"]) is None
    assert list(tmp_path.iterdir()) == []


def test_where_the_database_is(monkeypatch, tmp_path):
    monkeypatch.delenv("ATTNGEN_DB", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert open_database().url.database == str(tmp_path / "attngen" / "tunings.sqlite")
    monkeypatch.setenv("ATTNGEN_DB", "sqlite:////somewhere/else.db")
    assert open_database().url.database == "/somewhere/else.db"
    assert open_database("mine.db").url.database == "mine.db"
    assert open_database("postgresql://host/tunings").url.host == "host"
    with pytest.raises(UsageError, match="is not a database"):
        open_database("://")


def test_a_missing_driver_is_one_line():
    with pytest.raises(UsageError, match="no driver for nosuch"):
        open_database("nosuch://host/name").record(trial())


def test_tables_of_another_version_are_refused(db, tmp_path):
    db.record(trial())
    with sqlite3.connect(tmp_path / "tunings.sqlite") as connection:
        connection.execute("UPDATE attngen_meta SET value = '99'")
    with pytest.raises(UsageError, match="tables of version 99"):
        open_database(str(tmp_path / "tunings.sqlite")).trials()


def test_an_unreadable_database_is_a_warning_for_lookups(tmp_path):
    path = tmp_path / "broken.sqlite"
    path.write_bytes(b"this is no database" * 100)
    with pytest.warns(RuntimeWarning, match="cannot be read"):
        assert open_database(str(path), shipped=False).lookup(problem(), TARGETS["h100"]) is None


def test_a_config_that_could_be_code_is_not_read_back(db, tmp_path):
    db.record(trial())
    with sqlite3.connect(tmp_path / "tunings.sqlite") as connection:
        connection.execute("""UPDATE trials SET config = '{"BLOCK_M": "64; import os"}'""")
    with pytest.warns(RuntimeWarning, match="row 1 of .* is left out: .* must be an int of 32 bits, a plain word"):
        assert db.trials() == [] and db.lookup(problem(), TARGETS["h100"]) is None
    with pytest.raises(ValueError, match="a plain word"):
        db.record(trial(config=Config(loads="{{ 7 }}")))


def test_merge_adds_what_is_missing(db, tmp_path):
    other = open_database(str(tmp_path / "other.sqlite"), shipped=False)
    db.record_all([trial(1), trial(2)])
    other.record_all([trial(2), trial(3)])
    assert db.merge(other) == 1
    assert sorted(t.median_ms for t in db.trials()) == [1, 2, 3]


def test_prune_keeps_the_best_of_each_problem(db):
    db.record_all([trial(1 + n / 8) for n in range(6)] + [trial(9, at=problem(seq=64))])
    db.record(trial(None, status="crashed", median_ms=None, config=Config(BLOCK_M=32)))
    assert db.prune(2, dry_run=True) == 5 and len(db.trials()) == 8
    assert db.prune(2, before=START - timedelta(hours=1)) == 0
    assert db.prune(2) == 5
    assert sorted(t.median_ms for t in db.trials()) == [1, 1.125, 9]


def test_other_databases_understand_the_tables():
    for dialect in (postgresql.dialect(), mysql.dialect()):
        assert "CREATE TABLE trials" in str(CreateTable(TrialRow.__table__).compile(dialect=dialect))

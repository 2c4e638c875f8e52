"""From a URL, a path or nothing to a SQLAlchemy engine that many processes may use at once."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy.dialects.sqlite  # noqa: F401  # what a first lookup would import
from sqlalchemy import Engine, create_engine, event, insert, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.pool import NullPool, StaticPool

from attngen.database.models import SCHEMA_VERSION, Base, Meta, TrialRow
from attngen.errors import UsageError

BUSY_TIMEOUT_SECONDS = 30.0
RETRIES = 8

T = TypeVar("T")


def default_path() -> Path:
    """The user's own database file."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "attngen" / "tunings.sqlite"


def resolve_url(url: str | None) -> URL:
    """The database meant by ``--db``, else by ATTNGEN_DB, else the user's own; a bare path is a SQLite file."""
    text = url or os.environ.get("ATTNGEN_DB") or str(default_path())
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser()))
    try:
        return make_url(text)
    except ArgumentError:
        raise UsageError(f"{text!r} is not a database: give a file, or a URL such as postgresql://host/name") from None


def sqlite_file(url: URL) -> Path | None:
    """The file behind a SQLite URL; None for a server or a database in memory."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return None
    return Path(url.database)


def make_engine(url: URL) -> Engine:
    """An engine; SQLite opens the file anew for each use, so that a forked child never shares a connection."""
    try:
        if url.get_backend_name() != "sqlite":
            return create_engine(url, pool_pre_ping=True)
        if sqlite_file(url) is None:
            engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
        else:
            engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise UsageError(f"no driver for {url.render_as_string()}: {error}") from None
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # A commit in WAL mode survives the death of its process; only a power cut could lose the last of them.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        retry(partial(cursor.execute, f"PRAGMA {pragma}"))
    cursor.close()


def retry(action: Callable[[], T]) -> T:
    """``action()``, again after a pause while another process holds what it needs.

    SQLite answers "locked" at once, whatever the busy timeout, when two processes switch a file to WAL
    or create the same table together.
    """
    for attempt in range(RETRIES):
        try:
            return action()
        except (OperationalError, ProgrammingError, sqlite3.OperationalError) as error:
            passing = any(word in str(error) for word in ("locked", "busy", "already exists"))
            if not passing or attempt == RETRIES - 1:
                raise
            time.sleep(0.02 * 2**attempt)
    raise AssertionError("unreachable")


def create_missing(engine: Engine, *rows: type[Base]) -> None:
    """Make tables where they are missing."""
    tables: list[Any] = [row.__table__ for row in rows]
    retry(lambda: Base.metadata.create_all(engine, tables=tables))


def create_tables(engine: Engine) -> None:
    """Make the tables that every database has where they are missing, and refuse those of another version."""
    create_missing(engine, Meta, TrialRow)
    with engine.connect() as connection:
        found = connection.execute(select(Meta.value).where(Meta.name == "schema")).scalar()
    if found is None:
        try:
            with engine.begin() as connection:
                connection.execute(insert(Meta).values(name="schema", value=str(SCHEMA_VERSION)))
        except IntegrityError:
            pass  # another process was first
    elif found != str(SCHEMA_VERSION):
        raise UsageError(
            f"{engine.url.render_as_string()} has tables of version {found}, this attngen writes {SCHEMA_VERSION}: "
            "export it with the attngen that made it, and import the text here"
        )

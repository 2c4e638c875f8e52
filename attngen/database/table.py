"""Reading and writing the table of trials, whatever else is reading and writing it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Engine, Select, delete, insert, inspect, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError

from attngen.database.engine import create_missing, create_tables, make_engine, retry, sqlite_file
from attngen.database.models import KernelRow, TrialRow, from_row, to_row
from attngen.database.trial import Trial

_CHUNK = 500  # rows in one statement: below every database's limit on parameters


class TrialTable:
    """The trials of one database. Connects when first needed; the tables are made when first written."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self._engine: Engine | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "_engine": None}

    def insert(self, trials: Iterable[Trial]) -> int:
        """Keep trials, those already here left as they are; how many were new. They are on disk on return."""
        rows = {row["fingerprint"]: row for row in map(to_row, trials)}
        engine = self._writable()
        for known in self._known(engine, list(rows)):
            rows.pop(known)
        if not rows:
            return 0
        statement = insert(TrialRow)
        try:
            retry(partial(_execute, engine, statement, list(rows.values())))
            return len(rows)
        except IntegrityError:  # another process added one of them meanwhile
            return sum(self._insert_one(engine, row) for row in rows.values())

    def delete(self, fingerprints: list[str]) -> None:
        """Drop the trials so named."""
        engine = self._writable()
        for part in _chunks(fingerprints):
            retry(partial(_execute, engine, delete(TrialRow).where(TrialRow.fingerprint.in_(part))))

    def keep_kernel(self, source: str, key: str, files: bytes) -> None:
        """Keep a compiled kernel, in place of the same one compiled before."""
        engine = self._writable()
        create_missing(engine, KernelRow)
        same = (KernelRow.source == source) & (KernelRow.key == key)

        def replace() -> None:
            with engine.begin() as connection:
                connection.execute(delete(KernelRow).where(same))
                connection.execute(insert(KernelRow).values(source=source, key=key, files=files))

        retry(replace)

    def kernels(self, source: str) -> Sequence[Any]:
        """(key, files) of each compiled kernel of a source; the table is made when one is kept."""
        if self._is_absent() or not inspect(self._writable()).has_table(KernelRow.__tablename__):
            return []
        return self.rows(select(KernelRow.key, KernelRow.files).where(KernelRow.source == source))

    def select(self, statement: Select) -> list[Trial]:
        """Trials from a SELECT over every column; rows that no attngen would write are left out, with a warning."""
        found = []
        for row in self.rows(statement):
            try:
                found.append(from_row(row))
            except ValueError as error:
                warnings.warn(f"row {row.id} of {self.url} is left out: {error}", RuntimeWarning, stacklevel=4)
        return found

    def rows(self, statement: Select) -> Sequence[Any]:
        """Rows of any SELECT; none where there is no database yet, and none is created."""
        if self._is_absent():
            return []
        with self._writable().connect() as connection:
            return connection.execute(statement).all()

    def _is_absent(self) -> bool:
        """Whether there is no database yet."""
        path = sqlite_file(self.url)
        return self._engine is None and path is not None and not path.exists()

    def _writable(self) -> Engine:
        if self._engine is None:
            path = sqlite_file(self.url)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            engine = make_engine(self.url)
            create_tables(engine)
            self._engine = engine
        return self._engine

    @staticmethod
    def _known(engine: Engine, fingerprints: list[str]) -> list[str]:
        known: list[str] = []
        with engine.connect() as connection:
            for part in _chunks(fingerprints):
                known += connection.scalars(select(TrialRow.fingerprint).where(TrialRow.fingerprint.in_(part)))
        return known

    @staticmethod
    def _insert_one(engine: Engine, row: dict[str, Any]) -> int:
        try:
            retry(partial(_execute, engine, insert(TrialRow), [row]))
            return 1
        except IntegrityError:
            return 0


def _execute(engine: Engine, statement: Any, values: list[dict[str, Any]] | None = None) -> None:
    with engine.begin() as connection:
        connection.execute(statement, values) if values else connection.execute(statement)


def _chunks(items: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]

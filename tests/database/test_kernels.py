"""Compiled kernels stay in the file that they were kept in, and nothing else comes out of it."""

import sqlite3

import pytest
from database_examples import trial

from attngen.database import open_database
from attngen.database.kernels import packed, unpacked

FILES = {"attention_forward.json": b"{}", "attention_forward.cubin": b"\x7fELF" + bytes(1000)}


def test_what_is_kept_is_found_again(db):
    assert db.kernels("source") == {}
    db.keep_kernel("source", "key", {"attention_forward.json": b"old"})
    db.keep_kernel("source", "key", FILES)
    db.keep_kernel("source", "another", FILES)
    db.keep_kernel("another source", "key", FILES)
    assert open_database(str(db.url.database)).kernels("source") == {"key": FILES, "another": FILES}


def test_a_database_without_kernels_is_only_read(db):
    db.record(trial(1))
    assert db.kernels("source") == {}
    with sqlite3.connect(db.url.database) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert "trials" in names and "kernels" not in names


def test_kernels_are_not_exported_and_not_merged(db, tmp_path):
    db.record(trial(1))
    db.keep_kernel("source", "key", FILES)
    other = open_database(str(tmp_path / "other.sqlite"), shipped=False)
    assert other.merge(db) == 1
    assert other.kernels("source") == {}
    assert not any("cubin" in text for text in db.export().values())


def test_a_server_holds_none():
    """It is not even asked: there is no server here."""
    server = open_database("postgresql://nobody@localhost:1/nothing")
    server.keep_kernel("source", "key", FILES)
    assert server.kernels("source") == {}


@pytest.mark.parametrize(
    "data",
    [b"", b"no zip", packed(FILES)[:-30], packed({"../kernel.cubin": b""}), packed({"kernel.so": b""})],
    ids=["empty", "no zip", "cut off", "a folder", "another file"],
)
def test_what_is_no_kernel_is_left_out(data, db):
    assert unpacked(data) == {}
    db.keep_kernel("source", "key", FILES)
    with sqlite3.connect(db.url.database) as connection:
        connection.execute("UPDATE kernels SET files = ?", (data,))
    assert db.kernels("source") == {}

"""``attngen db``: tunings out of a database, into one, from one to another, and the worst of them dropped."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from attngen.cli.group import Commands
from attngen.cli.importing import write_new
from attngen.cli.options import Whole, db_option, json_option
from attngen.cli.output import print_json
from attngen.errors import UsageError
from attngen.report.layers import counted

if TYPE_CHECKING:
    from attngen.database import Database

STDIN = "-"


@click.group("db", cls=Commands)
def command() -> None:
    """Export, import, merge and prune tuning databases."""


@command.command("export")
@db_option
@click.option("--target", metavar="NAME", help="Only the trials of this GPU. [all]")
@click.option("--all", "everything", is_flag=True, help="Every trial, not only the best of each problem.")
@click.option("--out", metavar="DIR", help="Folder for one file a GPU, as tuning_db/ has them. [stdout]")
@click.option("--force", is_flag=True, help="Replace files of DIR.")
def export(db: str | None, target: str | None, everything: bool, out: str | None, force: bool) -> None:
    """Write tunings as text, one file a GPU."""
    database = _open(db)
    files = database.export(target=target, everything=everything)
    if not files:
        of = f" for {target}" if target else ""
        raise UsageError(f"{database.url.render_as_string()} has no trials{of}; 'attngen tune' makes some")
    if out is None:
        if len(files) > 1:
            raise UsageError(f"there are tunings for {', '.join(files)}; --out DIR takes a file of each, --target one")
        print(next(iter(files.values())), end="")
        return
    for name, text in files.items():
        path = Path(out) / f"{name}.yaml"
        write_new(path, text, force)
        print(f"wrote {path}")


@command.command("import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@db_option
@json_option
def import_(files: tuple[str, ...], db: str | None, as_json: bool) -> None:
    """Add the tunings of exported FILEs; - is stdin."""
    from attngen.database import read_tunings

    found = [trial for file in files for trial in read_tunings(_read(file), "<stdin>" if file == STDIN else file)]
    database = _open(db)
    _report(database, len(found), database.record_all(found), as_json)


@command.command("merge")
@click.argument("others", metavar="URL...", nargs=-1, required=True)
@db_option
@json_option
def merge(others: tuple[str, ...], db: str | None, as_json: bool) -> None:
    """Add everything that the databases URL... have."""
    from attngen.database.engine import resolve_url, sqlite_file

    for other in others:
        path = sqlite_file(resolve_url(other))
        if path is not None and not path.is_file():
            raise UsageError(f"{other}: there is no such database")
    found = [trial for other in others for trial in _open(other).trials()]
    database = _open(db)
    _report(database, len(found), database.record_all(found), as_json)


@command.command("prune")
@db_option
@click.option(
    "--keep",
    type=Whole(1, 1 << 20),
    default=8,
    show_default=True,
    metavar="N",
    help="Best trials of each problem that stay.",
)
@click.option("--target", metavar="NAME", help="Only the trials of this GPU. [all]")
@click.option("--older-than", type=Whole(0, 36500), metavar="DAYS", help="Spare trials that are younger.")
@click.option("--dry-run", is_flag=True, help="Only say how many would go.")
@json_option
def prune(db: str | None, keep: int, target: str | None, older_than: int | None, dry_run: bool, as_json: bool) -> None:
    """Drop all but the best trials of each problem."""
    before = None if older_than is None else datetime.now(timezone.utc) - timedelta(days=older_than)
    database = _open(db)
    dropped = database.prune(keep, target=target, before=before, dry_run=dry_run)
    if as_json:
        print_json({"dropped": dropped, "dry_run": dry_run, "kept": len(database.trials())})
        return
    print(f"{'would drop' if dry_run else 'dropped'} {counted(dropped, 'trial')}; {len(database.trials())} are there")


def _open(url: str | None) -> Database:
    from attngen.database import open_database

    return open_database(url, shipped=False)


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == STDIN else Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{file}: it is not UTF-8 text; a file of 'attngen db export' is needed") from None


def _report(database: Database, found: int, new: int, as_json: bool) -> None:
    if as_json:
        print_json({"found": found, "new": new})
        return
    print(f"{counted(found, 'trial')} found, {new} of them new to {database.url.render_as_string()}")

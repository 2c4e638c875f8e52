"""``attngen import``: a spec from a model's Hugging Face config."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from attngen.cli.output import print_json
from attngen.errors import UsageError
from attngen.spec import dump_spec


@click.command("import")
@click.argument("config", metavar="CONFIG")
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write the spec to FILE, not to stdout.")
@click.option("--name", metavar="NAME", help="Name of the spec. [the model's]")
@click.option("--force", is_flag=True, help="Replace FILE where it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the spec's text and the notes as JSON on stdout.")
def command(config: str, out: str | None, name: str | None, force: bool, as_json: bool) -> None:
    """Make a spec from a Hugging Face config.json; say how its numbers, windows above all, were read."""
    from attngen.importer import load_config

    imported = load_config(config, name)
    text = dump_spec(imported.spec)
    if out is not None:
        write_new(Path(out), text, force)
    if as_json:
        print_json({"name": imported.spec.name, "notes": list(imported.notes), "spec": text, "file": out})
        return
    for note in imported.notes:
        print(f"note: {note}", file=sys.stderr)
    if out is None:
        print(text, end="")
    else:
        print(f"wrote {out}: {imported.spec.layers} layers; 'attngen check {out}' shows them")


def write_new(path: Path, text: str, force: bool) -> None:
    """Write a file that is not there yet, or with ``force`` any."""
    if path.exists() and not force:
        raise UsageError(f"{path} exists already; --force replaces it")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")

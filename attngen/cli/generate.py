"""``attngen generate``: a spec as an importable Python package of its kernels."""

from __future__ import annotations

from pathlib import Path

import click

from attngen.cli.options import db_option, json_option, resolve_target, spec_argument, target_option
from attngen.cli.output import print_json
from attngen.spec import Spec, load_spec
from attngen.target import Target


@click.command("generate")
@spec_argument
@click.option("--out", required=True, metavar="DIR", help="Folder of the package; its name is the package's.")
@target_option
@db_option
@click.option("--force", is_flag=True, help="Write into DIR though it holds files of another origin.")
@json_option
def command(path: str, out: str, target: str | None, db: str | None, force: bool, as_json: bool) -> None:
    """Write a package with an op for each kind; it needs only torch and triton."""
    spec = load_spec(path)
    gpu = resolve_target(target)
    files = write(spec, out, gpu, db, force)
    if as_json:
        print_json({"package": Path(out).name, "target": gpu.name, "files": [str(file) for file in files]})
        return
    print(f"wrote {len(files)} files to {out} for {gpu.name}; {Path(out) / 'README.md'} says how to use them")


def write(spec: Spec, out: str, target: Target, db: str | None, force: bool = False) -> list[Path]:
    """The package of ``spec`` in the folder ``out``; the files written."""
    from attngen.package import write_package

    return write_package(spec, out, target=target, db=db, force=force)

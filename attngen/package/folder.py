"""Writing a package into a folder: nothing of a user's is overwritten or removed, nothing is left half done."""

from __future__ import annotations

import json
import keyword
import os
import shutil
import tempfile
from os import PathLike
from pathlib import Path

from attngen.database import Database
from attngen.errors import UsageError
from attngen.package.files import MANIFEST, package_files
from attngen.spec import Spec
from attngen.target import Target


def write_package(
    spec: Spec,
    out: str | PathLike[str],
    *,
    target: Target,
    db: Database | str | None = None,
    force: bool = False,
) -> list[Path]:
    """The package of ``spec`` in the folder ``out``, whose name is the package's; the files written.

    The folder may be new, empty, or hold a package that was generated before; ``force`` allows any other, whose own
    files stay. Raises UsageError for a folder that does not do, NotGeneratedError for kinds without kernels; nothing
    has been written then.
    """
    folder = Path(os.path.abspath(out))
    check_name(folder.name)
    ours = check_folder(folder, force)
    files = package_files(spec, folder.name, target=target, db=db)
    try:
        _write(folder, files, ours)
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror or error}; a folder that can be written is needed") from error
    return [folder / name for name in files]


def check_name(name: str) -> None:
    """UsageError unless Python can import a package called ``name``."""
    if name.isidentifier() and not keyword.iskeyword(name):
        return
    better = "".join(c if c.isalnum() else "_" for c in name).strip("_") or "attention"
    better = f"attention_{better}" if not better[0].isalpha() or keyword.iskeyword(better) else better
    raise UsageError(f"a Python package cannot be called '{name}'; a folder called '{better}' would be right")


def check_folder(folder: Path, force: bool) -> set[str]:
    """The files that an earlier generation left in ``folder``; UsageError when it holds anything else."""
    if not folder.exists():
        return set()
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; the name of a folder is needed")
    present = {path.name for path in folder.iterdir()} - {"__pycache__"}
    ours = _files_of(folder / MANIFEST)
    foreign = sorted(present - ours)
    if foreign and not force:
        held = f"'{foreign[0]}'" + (f" and {len(foreign) - 1} more" if len(foreign) > 1 else "")
        raise UsageError(f"{folder} holds {held}, not made by attngen; another folder, or --force, would be right")
    return ours & present


def _files_of(manifest: Path) -> set[str]:
    """Files named by a manifest, itself included; empty where there is none that we wrote."""
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    if not isinstance(content, dict) or content.get("generator") != "attngen":
        return set()
    files = content.get("files")
    names = {name for name in files if isinstance(name, str)} if isinstance(files, list) else set()
    return {name for name in names if name == os.path.basename(name)} | {MANIFEST}


def _write(folder: Path, files: dict[str, str], ours: set[str]) -> None:
    """All files beside the folder first, then moved into place: whole where it is new, one by one where it is not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        staging.chmod(0o755)
        for name, text in files.items():
            (staging / name).write_text(text, encoding="utf-8")
        if not folder.exists():
            staging.rename(folder)
            return
        for name in files:
            os.replace(staging / name, folder / name)
        for name in ours - files.keys():
            (folder / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)

"""Triton's hash of itself, kept on disk: computing it reads half a gigabyte at the start of every process."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import triton

from attngen.resources import cache_dir

KNOWN = ("3.6.",)  # versions whose ``triton.runtime.cache.triton_key`` is what every lookup of a kernel begins with


@cache
def remember_triton_key() -> None:
    """Let Triton find its compiled kernels without hashing itself, while none of its files has changed.

    The first time it hashes itself as ever; what it gave is kept beside the size and time of every file that it read.
    """
    if not triton.__version__.startswith(KNOWN):
        return
    from triton.runtime import cache as triton_cache

    path = cache_dir() / "triton_key.json"
    stamp = stamp_of(Path(triton.__file__).parent)
    key = _read(path, stamp)
    if key is None:
        key = triton_cache.triton_key()
        with suppress(OSError):
            _write(path, {"stamp": stamp, "key": key})
    triton_cache.triton_key = lambda: key


def stamp_of(folder: Path) -> str:
    """Changes when a file of Triton's compiler, back ends or language does."""
    files = [*folder.glob("_C/libtriton.*"), folder / "runtime" / "cache.py"]
    files += [file for part in ("compiler", "backends", "language") for file in folder.glob(f"{part}/**/*.py")]
    stats = [(str(file), stat.st_size, stat.st_mtime_ns) for file in sorted(files) for stat in [file.stat()]]
    return hashlib.sha256(repr((triton.__version__, stats)).encode()).hexdigest()


def _read(path: Path, stamp: str) -> str | None:
    """The key that was kept for this very Triton."""
    try:
        kept = json.loads(path.read_text())
        return str(kept["key"]) if kept["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, values: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        json.dump(values, file)
    os.replace(file.name, path)

"""Loading generated text as a Python module: Triton reads a kernel's source from its file."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from attngen.resources import cache_dir
from attngen.source.render import Source


def source_folder() -> Path:
    """Where generated modules are kept."""
    return cache_dir() / "generated"


def load_source(source: Source) -> Any:
    """The entry function of ``source``. Equal text is one module, in a process and on disk."""
    return _load(source.text, source.digest, source.entry)


@cache
def _load(text: str, digest: str, entry: str) -> Any:
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    name = f"attngen_generated_{digest}{'_interpreted' if interpreted else ''}"
    path = _write(text, f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return getattr(module, entry)


def _write(text: str, filename: str) -> Path:
    """The text in the cache folder, moved into place whole so that processes may race; else in a temporary one."""
    for folder in (source_folder(), Path(tempfile.mkdtemp(prefix="attngen-"))):
        path = folder / filename
        try:
            if path.is_file() and path.read_text() == text:
                return path
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".tmp", delete=False) as file:
                file.write(text)
            os.replace(file.name, path)
            return path
        except OSError:
            continue
    raise OSError(f"cannot write generated code to {source_folder()} or a temporary folder")

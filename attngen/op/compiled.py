"""Compiled kernels as values: what Triton's cache holds of one, and putting it back where that cache is empty."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

KEPT = (".json", ".cubin")  # what a launch needs; Triton's cache has every stage on the way to it besides


def compiled_files(compiled: Any) -> dict[str, bytes]:
    """The files of a kernel that Triton has compiled, by name."""
    return {name: Path(path).read_bytes() for name, path in compiled.metadata_group.items() if name.endswith(KEPT)}


def put_back(kernels: Mapping[str, Mapping[str, bytes]]) -> None:
    """Put kernels into Triton's cache, by Triton's key for each, unless they are there.

    Triton's key says all that a kernel depends on: one of another version or GPU lies there unused.
    """
    from triton.runtime.cache import get_cache_manager

    for key, files in kernels.items():
        cache = get_cache_manager(key)
        about = next((name for name in files if name.endswith(".json")), "")
        if about and not cache.get_group(about):
            with suppress(OSError):  # Triton says so itself when it cannot write there
                cache.put_group(about, {name: cache.put(content, name) for name, content in files.items()})

"""Launching a compiled kernel without Triton's front end, whose every call costs more than the rest of an op's."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import triton

KNOWN = ("3.6.",)  # versions whose compiled kernels are called so
Direct = Callable[..., None]


def direct_launch(compiled: Any, grid: int) -> Direct | None:
    """A launch of ``compiled`` that takes a stream and the kernel's arguments, pointers as integers.

    None where this Triton may be called another way, under ATTNGEN_SAFE_LAUNCH=1, or when nothing was compiled, as in
    Triton's interpreter.
    """
    if compiled is None or not triton.__version__.startswith(KNOWN) or os.environ.get("ATTNGEN_SAFE_LAUNCH") == "1":
        return None
    run, function, metadata = compiled.run, compiled.function, compiled.packed_metadata
    return lambda stream, *arguments: run(grid, 1, 1, stream, function, metadata, None, None, None, *arguments)

"""attngen: a compiler from a declarative attention pattern to specialised Triton kernels.

>>> import attngen
>>> attn = attngen.load("examples/modernbert-base.yaml")
>>> out = attn(q, k, v, layer=4)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from attngen.errors import AttngenError, CallError, NotGeneratedError, SpecError, UsageError

__version__ = "0.1.0"

if TYPE_CHECKING:
    from attngen import nn
    from attngen.op import Attention, KindOp, load

__all__ = [
    "Attention",
    "AttngenError",
    "CallError",
    "KindOp",
    "NotGeneratedError",
    "SpecError",
    "UsageError",
    "__version__",
    "load",
    "nn",
]

_OPS = ("Attention", "KindOp", "load")


def __getattr__(name: str) -> Any:
    """Ops and modules are imported when they are first asked for: reading a spec needs no torch."""
    if name in _OPS:
        import attngen.op

        return getattr(attngen.op, name)
    if name == "nn":
        return importlib.import_module("attngen.nn")
    raise AttributeError(f"module 'attngen' has no attribute '{name}'")

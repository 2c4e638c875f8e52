"""The software that a measurement was made with."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from attngen import __version__


@dataclass(frozen=True)
class Versions:
    """Version strings; empty where unknown."""

    attngen: str = ""
    triton: str = ""
    torch: str = ""
    cuda: str = ""  # the toolkit torch was built with, or ROCm's
    driver: str = ""

    def as_dict(self) -> dict[str, str]:
        return {name: value for name, value in asdict(self).items() if value}


@lru_cache(maxsize=1)
def current_versions() -> Versions:
    """The versions installed here. Never imports torch: its build is read only where it is already loaded."""
    torch = sys.modules.get("torch")
    build = getattr(torch, "version", None)
    return Versions(
        attngen=__version__,
        triton=_installed("triton"),
        torch=_installed("torch"),
        cuda=str(getattr(build, "cuda", None) or getattr(build, "hip", None) or ""),
        driver=_driver(),
    )


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _driver() -> str:
    for path in ("/proc/driver/nvidia/version", "/sys/module/amdgpu/version"):
        try:
            text = Path(path).read_text()
        except OSError:
            continue
        found = re.search(r"\d+\.\d+(\.\d+)?", text)
        if found:
            return found.group()
    return ""

"""Measured rows, and what they were measured on, as one JSON file."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from attngen.database import current_versions

CLOCKS = ("clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit", "temperature.gpu")
NVIDIA_SMI_SECONDS = 10.0


@dataclass(frozen=True)
class Row:
    """One system on one case. ``ms`` is None where it could not run, and ``note`` says why."""

    suite: str
    case: str
    system: str
    ms: float | None
    spread: float | None = None  # ms between the 20th and the 80th percentile
    tflops: float | None = None
    gbps: float | None = None
    roofline: float | None = None  # share of the chip's limit, 1.0 is all of it
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        values = {name: round(v, 6) if isinstance(v, float) else v for name, v in vars(self).items()}
        return {name: value for name, value in values.items() if value not in (None, "") or name == "ms"}


@dataclass(frozen=True)
class HostRow:
    """What one system's call costs the host: microseconds to issue it, and seconds of a first call."""

    system: str
    call_us: float | None
    first_cold_s: float | None = None
    first_warm_s: float | None = None
    note: str = ""


def as_json(rows: list[Row], host: list[HostRow], device: str) -> dict[str, Any]:
    """The whole file."""
    values: dict[str, Any] = {
        "device": device,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "versions": current_versions().as_dict() | _peer_versions(),
        "clocks": _clocks(),
        "rows": [row.as_dict() for row in rows],
    }
    if host:
        values["host"] = [{name: value for name, value in vars(row).items() if value not in (None, "")} for row in host]
    return values


def write(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _peer_versions() -> dict[str, str]:
    """Versions of what was measured against and is not part of torch."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("flash-attn-3", "flash-attn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _clocks() -> dict[str, float]:
    """What the driver says of clocks (MHz), power (W) and heat (degrees C); nothing where there is no driver."""
    command = ["nvidia-smi", f"--query-gpu={','.join(CLOCKS)}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=True)
        values = run.stdout.strip().splitlines()[0].split(",")
    except (OSError, subprocess.SubprocessError, IndexError):
        return {}
    clocks = {}
    for name, value in zip(CLOCKS, values, strict=False):
        try:
            clocks[name] = float(value)
        except ValueError:
            continue
    return clocks

"""Measured rows, and what they were measured on, as one JSON file for each GPU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attngen.errors import UsageError

RUN_FIELDS = ("versions", "clocks", "limits", "missing", "notes")  # of a file that are also kept for each run


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
    bound: str = ""  # which limit: math, bytes or exponentials
    note: str = ""
    config: dict[str, Any] | None = None  # of ours
    provenance: str = ""  # where that config comes from
    sm_mhz: float | None = None  # while this case was measured

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

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value not in (None, "")}


@dataclass(frozen=True)
class Run:
    """One run of the command: its rows were measured side by side, and only those are compared."""

    id: str  # when it began
    device: str
    hardware: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    clocks: dict[str, float] | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # systems that are not here, and why
    notes: tuple[str, ...] = ()


def as_json(run: Run, rows: Sequence[Row], host: Sequence[HostRow] = ()) -> dict[str, Any]:
    """The whole file of one run."""
    about = {name: getattr(run, name) for name in RUN_FIELDS} | {"notes": list(run.notes)}
    under_load = [row.sm_mhz for row in rows if row.sm_mhz is not None]
    if under_load:
        during = {"clocks.sm.slowest_case": min(under_load), "clocks.sm.fastest_case": max(under_load)}
        about["clocks"] = (run.clocks or {}) | during
    values: dict[str, Any] = {
        "device": run.device,
        "hardware": run.hardware,
        "date": run.id[:10],
        **about,
        "runs": [{"id": run.id, **about}],
        "rows": [{**row.as_dict(), "run": run.id} for row in rows],
    }
    if host:
        values["host"] = [{**row.as_dict(), "run": run.id} for row in host]
    return values


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """``old`` with the rows that ``new`` has too replaced, its others after them, and the rest as ``new`` says."""
    check_device(old, new["device"])
    old = with_runs(old)
    values = {**old, **new}
    values["rows"] = _replaced(old["rows"], new["rows"], ("suite", "case", "system"))
    host = _replaced(old.get("host", []), new.get("host", []), ("system",))
    if host:
        values["host"] = host
    used = {row["run"] for row in (*values["rows"], *host)} | {run["id"] for run in new["runs"]}
    runs = {run["id"]: run for run in (*old["runs"], *new["runs"])}
    values["runs"] = [run for name, run in runs.items() if name in used]
    return values


def check_device(values: dict[str, Any], device: str) -> None:
    if values["device"] != device:
        raise UsageError(
            f"those results are of {values['device']}, and this machine has {device}; --json begins a file"
        )


def with_runs(values: dict[str, Any]) -> dict[str, Any]:
    """Results whose rows all name their run; those of an older file are of one, called by its date."""
    if "runs" in values:
        return values
    name = values.get("date", "")
    rows: dict[str, Any] = {
        part: [{**row, "run": name} for row in values[part]] for part in ("rows", "host") if part in values
    }
    about = {part: values[part] for part in RUN_FIELDS if part in values}
    return {**values, "runs": [{"id": name, **about}], **rows}


def read(path: Path) -> dict[str, Any]:
    """The results in a file; UsageError where it has none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"{path}: not JSON; results of 'attngen bench' would be right") from error
    if not is_results(values):
        raise UsageError(f"{path}: not results of 'attngen bench'")
    return with_runs(values)


def is_results(values: Any) -> bool:
    return isinstance(values, dict) and "device" in values and isinstance(values.get("rows"), list)


def write(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _replaced(
    old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The rows of ``old``, each that ``new`` has too from there, then the rest of ``new``."""
    rows = {tuple(row[name] for name in names): row for row in old}
    rows.update({tuple(row[name] for name in names): row for row in new})
    return list(rows.values())

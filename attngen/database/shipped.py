"""The tunings that travel with the package: read-only, one file a GPU, read when first asked for."""

from __future__ import annotations

from functools import cache

from attngen.database.text import read_tunings
from attngen.database.trial import Trial
from attngen.resources import resource_dir


@cache
def shipped_targets() -> tuple[str, ...]:
    """GPUs that tunings are shipped for."""
    try:
        folder = resource_dir("tuning_db")
    except FileNotFoundError:
        return ()
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


@cache
def shipped_trials(target: str) -> tuple[Trial, ...]:
    """All tunings shipped for one GPU."""
    if target not in shipped_targets():
        return ()
    path = resource_dir("tuning_db") / f"{target}.yaml"
    return tuple(read_tunings(path.read_text(encoding="utf-8"), str(path)))

"""Finding the best config of a kernel: propose, compile, check, measure, remember.

tune            search one problem within a number of trials or minutes
sweep           try every feasible config of a problem
Team            the processes that work for them, to keep between problems
TuningResult    what a run came to; Progress is what it reports on the way
progress_bar    reports to a terminal
estimate_ms     the cost model
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attngen.tuner.api import DEFAULT_TRIALS, sweep, tune
    from attngen.tuner.cost_model import estimate_ms
    from attngen.tuner.loop import TuningError
    from attngen.tuner.progress import progress_bar
    from attngen.tuner.result import Progress, Reporter, TuningResult
    from attngen.tuner.team import Team, default_workers

__all__ = [
    "DEFAULT_TRIALS",
    "Progress",
    "Reporter",
    "Team",
    "TuningError",
    "TuningResult",
    "default_workers",
    "estimate_ms",
    "progress_bar",
    "sweep",
    "tune",
]

_MODULES = ("api", "cost_model", "loop", "progress", "result", "team")


def __getattr__(name: str) -> Any:
    """Found when first asked for: worker processes import this package and need neither Optuna nor SQLAlchemy."""
    if name in __all__:
        for module in _MODULES:
            found = vars(importlib.import_module(f"attngen.tuner.{module}")).get(name)
            if found is not None:
                return found
    raise AttributeError(f"module 'attngen.tuner' has no attribute '{name}'")

"""What launches each kernel: a launcher of a plan and a config, by the kernel's name."""

from __future__ import annotations

from typing import Any

from attngen.config import Config
from attngen.op.gathered import GatheredLauncher
from attngen.op.indexer import IndexerLauncher
from attngen.op.launch import Launcher
from attngen.op.quantise import QuantiseLauncher
from attngen.op.select import SelectLauncher
from attngen.plan import Plan

LAUNCHERS: dict[str, Any] = {
    "forward": Launcher,
    "gathered": GatheredLauncher,
    "indexer": IndexerLauncher,
    "quantise": QuantiseLauncher,
    "select": SelectLauncher,
}


def launcher_of(plan: Plan, config: Config | None) -> Any:
    """One config of a plan, callable with tensors of any lengths."""
    return LAUNCHERS[plan.kernel](plan, config)

"""What launches each kernel: a launcher of a plan and a config, by the kernel's name."""

from __future__ import annotations

from typing import Any

from attngen.config import Config
from attngen.database import Database
from attngen.op.block_select import BlockSelectLauncher
from attngen.op.choose import Chooser
from attngen.op.gated import GatedLauncher
from attngen.op.gathered import GatheredLauncher
from attngen.op.gradient_launch import (
    ElementsLauncher,
    FusedLauncher,
    KeysLauncher,
    QueriesLauncher,
    RowsLauncher,
)
from attngen.op.indexer import IndexerLauncher
from attngen.op.launch import MAX_KEPT_SHAPES, Launcher
from attngen.op.quantise import QuantiseLauncher
from attngen.op.routed import RoutedLauncher
from attngen.op.select import SelectLauncher
from attngen.plan import Plan
from attngen.problem import Problem

LAUNCHERS: dict[str, Any] = {
    "backward_elements": ElementsLauncher,
    "backward_fused": FusedLauncher,
    "backward_kv": KeysLauncher,
    "backward_q": QueriesLauncher,
    "backward_rows": RowsLauncher,
    "block_select": BlockSelectLauncher,
    "forward": Launcher,
    "gated": GatedLauncher,
    "gathered": GatheredLauncher,
    "indexer": IndexerLauncher,
    "quantise": QuantiseLauncher,
    "routed": RoutedLauncher,
    "select": SelectLauncher,
}


def launcher_of(plan: Plan, config: Config | None) -> Any:
    """One config of a plan, callable with tensors of any lengths."""
    return LAUNCHERS[plan.kernel](plan, config)


class Launchers:
    """The launchers of one plan: of each problem, that of the config chosen for it."""

    def __init__(self, plan: Plan, db: Database | str | None = None) -> None:
        self.plan = plan
        self.chooser = Chooser(plan, db)
        self._digest = plan.kind.digest()
        self._made: dict[Config, Any] = {}
        self._at: dict[tuple[int, int, int, bool], Any] = {}

    def at(self, batch: int, seq_q: int, seq_k: int, *, gluon: bool = True) -> Any:
        """Of a call's sizes; without ``gluon``, of schedules that take tensors laid out anyhow."""
        sizes = (batch, seq_q, seq_k, gluon)
        launcher = self._at.get(sizes)
        if launcher is None:
            if len(self._at) >= MAX_KEPT_SHAPES:
                self._at.clear()
            launcher = self._at[sizes] = self._chosen(*sizes)
        return launcher

    def _chosen(self, batch: int, seq_q: int, seq_k: int, gluon: bool) -> Any:
        problem = Problem(self.plan.kernel, self._digest, batch, seq_q, seq_k)
        config = self.chooser.at(problem, gluon=gluon).config
        launcher = self._made.get(config)
        if launcher is None:
            launcher = self._made[config] = launcher_of(self.plan, config)
        return launcher

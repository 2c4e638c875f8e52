"""What the operator that sums branches computes, on each device."""

from __future__ import annotations

import torch

from attngen.database import Database
from attngen.op.gates import gated_sum
from attngen.op.kernels import Launchers
from attngen.plan.gated import plan_gated
from attngen.spec.model import Kind

SCHEMA = "(Tensor[] results, Tensor gates) -> Tensor"


class GatedForward:
    """(the branches' results, gates) -> their sum, laid out like the first."""

    def __init__(self, kind: Kind, db: Database | str | None) -> None:
        self.launchers = Launchers(plan_gated(kind), db)

    def cuda(self, results: list[torch.Tensor], gates: torch.Tensor) -> torch.Tensor:
        """By a kernel."""
        batch, _, seq_q, _ = results[0].shape
        return self.launchers.at(batch, seq_q, seq_q)(results, gates.float())

    def cpu(self, results: list[torch.Tensor], gates: torch.Tensor) -> torch.Tensor:
        """By PyTorch."""
        return torch.empty_like(results[0]).copy_(gated_sum(results, gates))

    def fake(self, results: list[torch.Tensor], gates: torch.Tensor) -> torch.Tensor:
        """A sum, not computed."""
        return torch.empty_like(results[0])

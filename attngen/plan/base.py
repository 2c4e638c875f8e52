"""What the plans of all kernels have in common."""

from __future__ import annotations

from typing import Protocol

from attngen.spec.model import Kind


class Plan(Protocol):
    """What one kernel of a kind must do. Plans are frozen values, equal where their kernels are."""

    @property
    def kernel(self) -> str:
        """The kernel's name: that of its templates, its space and its tunings."""

    @property
    def kind(self) -> Kind:
        """The kind of attention that it is a part of."""

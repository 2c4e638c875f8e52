"""The arguments and flags that commands share, spelled and explained once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from attngen.errors import UsageError, did_you_mean, one_of
from attngen.spec.model import Kind, Spec
from attngen.target import TARGETS, Target, get_target

F = TypeVar("F", bound=Callable[..., Any])

FALLBACK_TARGET = "h100"  # where this machine has no GPU
MAX_SEQ = 1 << 24
MAX_BATCH = 1 << 16
USUAL_SEQ = 8192  # of a problem that is tuned or measured, where nobody says otherwise
TOKENS = 16384  # of a batch, where nobody says otherwise
GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")

spec_argument = click.argument("path", metavar="SPEC")
target_option = click.option(
    "--target",
    metavar="NAME",
    help=f"GPU to work for: {one_of(TARGETS)}. [this machine's, or {FALLBACK_TARGET} where there is none]",
)
db_option = click.option(
    "--db", metavar="URL", help="Tuning database: a file or a SQLAlchemy URL. [ATTNGEN_DB, or one in the user's cache]"
)


class Whole(click.ParamType):
    """A whole number between two others."""

    name = "number"

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
        except ValueError:
            number = self.low - 1
        if not self.low <= number <= self.high:
            self.fail(f"{value} is not a whole number from {self.low} to {self.high}", param, ctx)
        return number


class Positive(click.ParamType):
    """A finite number above zero."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not 0 < number < math.inf:
            self.fail(f"{value} is not a number above 0", param, ctx)
        return number


def seq_option(default: str) -> Callable[[F], F]:
    """``--seq N``, with what is taken where nobody says."""
    text = f"Length: N queries over N keys. [{default}]"
    return click.option("--seq", type=Whole(1, MAX_SEQ), metavar="N", help=text)


def seqs_option(default: str) -> Callable[[F], F]:
    """``--seq N``, as often as there are lengths."""
    text = f"Length, N queries over N keys; may be given several times. [{default}]"
    return click.option("--seq", "seqs", type=Whole(1, MAX_SEQ), multiple=True, metavar="N", help=text)


batch_option = click.option(
    "--batch", type=Whole(1, MAX_BATCH), metavar="B", help=f"Sequences in a batch. [as many as make {TOKENS} tokens]"
)
backward_option = click.option(
    "--backward", is_flag=True, help="Kernels of the backward pass instead of the forward one."
)
kind_option = click.option("--kind", metavar="K", help="Only this kind of layer. [all]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")


def resolve_target(name: str | None) -> Target:
    """The target that ``--target`` names, else this machine's GPU, else an H100."""
    if name is not None:
        return get_target(name)
    return machine_gpu() or get_target(FALLBACK_TARGET)


def machine_gpu() -> Target | None:
    """This machine's GPU; torch, which is slow to import, is asked only where a driver has left a device."""
    if not any(os.path.exists(device) for device in GPU_DEVICES):
        return None
    from attngen.target import detect

    return detect()


def chosen_kinds(spec: Spec, name: str | None) -> tuple[Kind, ...]:
    """The kinds a command is about: the one named, or all."""
    if name is None:
        return spec.kinds
    names = [kind.name for kind in spec.kinds]
    if name not in names:
        raise UsageError(f"{spec.name} has no kind '{name}'; {did_you_mean(name, names)}")
    return (spec.kind(name),)


def kinds_without_backward(spec: Spec, names: Iterable[str]) -> dict[str, str]:
    """The kinds of ``names`` that have no backward pass, and what stands against it."""
    from attngen.plan.backward import lacks_backward

    reasons = {name: lacks_backward(spec.kind(name)) for name in names}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def default_batch(seq: int, batch: int | None) -> int:
    """``batch``, or as many sequences of ``seq`` tokens as make up the usual number."""
    return batch if batch is not None else max(1, TOKENS // seq)

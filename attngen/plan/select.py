"""What the kernel that selects keys must do: the exact top k of every row of logits, in order of keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attngen.config import Config
from attngen.errors import NotGeneratedError
from attngen.spec.model import Kind

MOST_SELECTED = 8192  # keys of a row
RUN = 8  # neighbouring logits of a sample: a sector of memory
ALIGNED = 16  # elements: tiles of a row begin at multiples of them
RESIDENT_THREADS = 1024  # of an SM: so many have 64 registers each
MOST_LISTED = 16384  # candidates of a list: what is counted of two such lists fits into 16 bits
MOST_THREADS = 1024  # of a program
LEAST_LIST = 4096  # candidates of a row; fewer would be outgrown by long rows

Logits = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class SelectPlan:
    """One selection: ``top_k`` keys of a row, of which the ``first`` first and the ``last`` last are always selected.

    A row is read once. A sample of it gives a bound that a few more than the top k lie above; what does is appended
    to a list of candidates, in order of keys. A list that grows too long is cut to its top k, and their least becomes
    the bound. A bound that turns out too high is dropped, and the row is read again. Where a sample shows that many
    keys are ties at the bound, as zeros of ReLU are, of those no more are appended once there are top k candidates.
    """

    kind: Kind
    top_k: int
    logits: Logits = "float32"
    first: int = 0
    last: int = 0
    kernel: Literal["select"] = "select"

    @property
    def chosen(self) -> int:
        """Keys that are selected by their logits."""
        return self.top_k - self.first - self.last


def plan_select(kind: Kind, *, logits: Logits = "float32") -> SelectPlan:
    """The plan of the selection that ``kind`` asks for; NotGeneratedError for what is not generated."""
    select = kind.select
    if select is None or select.top_k is None:
        raise NotGeneratedError(
            f"kind '{kind.name}' has no 'select: {{top_k: ...}}', so no keys are selected one by one"
        )
    top_k, first, last = select.top_k, select.first, select.last
    if not 1 <= top_k <= MOST_SELECTED:
        raise NotGeneratedError(f"kind '{kind.name}': top_k {top_k}; 1 to {MOST_SELECTED} are generated")
    if logits not in ("float32", "bfloat16"):
        raise NotGeneratedError(f"kind '{kind.name}': logits in {logits}; float32 and bfloat16 are generated")
    if first < 0 or last < 0 or first + last > top_k:
        raise NotGeneratedError(
            f"kind '{kind.name}': {first} first and {last} last keys always selected; 0 to top_k = {top_k} together are"
        )
    return SelectPlan(kind, top_k, logits, first, last)


def list_sizes(plan: SelectPlan) -> tuple[int, int]:
    """Candidates that a list is made for: twice the top k, rounded up to a power of two, or twice that."""
    least = max(LEAST_LIST, 1 << (2 * plan.top_k - 1).bit_length())
    return least, 2 * least


def scratch_elements(config: Config) -> int:
    """Of a program, int64: candidates, and a tile may come after a full list."""
    return int(config["LIST"] or 0) + int(config["BLOCK"] or 0)


def most_programs(config: Config, sms: int, warp_size: int = 32) -> int:
    """Programs that are resident together; each takes row after row."""
    return sms * max(RESIDENT_THREADS // (warp_size * int(config["num_warps"] or 1)), 1)


def why_not(plan: SelectPlan, config: Config, warp_size: int) -> str | None:
    """None when ``config`` can select right and without spilling, else why it cannot."""
    block, longest = int(config["BLOCK"] or 0), int(config["LIST"] or 0)
    sample, threads = int(config["SAMPLE"] or 0), warp_size * int(config["num_warps"] or 0)
    if any(n <= 0 or n & (n - 1) for n in (block, longest, sample, threads)):
        return "BLOCK, LIST, SAMPLE and num_warps are powers of two"
    if plan.chosen > longest:
        return f"a list of {longest} cannot hold {plan.chosen} keys"
    if longest > MOST_LISTED:
        return f"a list of {longest}; counts are of lists of at most {MOST_LISTED}"
    if max(block, sample) > longest:
        return f"a tile or a sample is longer than a list of {longest}"
    if sample < 2 * RUN:
        return f"a sample has at least two runs of {RUN}"
    if threads > MOST_THREADS:
        return f"{threads} threads a program; there are at most {MOST_THREADS}"
    if not 4 <= block // threads <= 16:
        return f"{block // threads} logits of a tile a thread; 4 to 16 are worth trying"
    if not 4 <= longest // threads <= 16:
        return f"{longest // threads} candidates a thread; 4 to 16 are worth trying"
    return None

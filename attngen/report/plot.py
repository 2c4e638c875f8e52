"""Pictures of masks and what they cost, as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attngen.errors import UsageError
from attngen.plan import plan_forward
from attngen.plan.work import keys_of
from attngen.report import layers
from attngen.report.decided import decided
from attngen.report.picture import picture
from attngen.report.quantities import duration, quantity, share
from attngen.report.work import Work, work_of
from attngen.spec.model import Kind, Spec
from attngen.target import Target

CELLS = 256
SEEN = "#1f6feb"
LEAST = 0.3  # of the colour, for the least visible share: four keys in eight thousand are seen too
LIMITS = ("math", "bytes", "exponentials")


def draw(spec: Spec, kinds: Sequence[Kind], seq: int, batch: int, target: Target, path: Path) -> None:
    """Write to ``path`` one column a kind, or a branch of one: its mask, and beneath it the least time that each limit
    of ``target`` allows."""
    figure_class, colours = _matplotlib()
    drawn = [(kind, one) for kind in kinds for one in kind.branches or (kind,)]
    figure = figure_class(figsize=(4.6 * len(drawn) + 0.6, 6.6), layout="constrained")
    figure.suptitle(f"{spec.name}: batch {batch}, {seq} x {seq}, on {target.name}", fontsize=12)
    axes = figure.subplots(2, len(drawn), squeeze=False, height_ratios=(4.4, 1))
    works = [work_of(plan_forward(decided(one)[0]), batch, seq, keys_of(one, seq), target) for _, one in drawn]
    longest = max(work.floor_ms for work in works)
    for column, ((kind, one), work) in enumerate(zip(drawn, works, strict=True)):
        where = f"layers {layers.compressed(layers.layers_of(spec, kind.name))}"
        _mask(axes[0, column], one, where if one is kind else f"a branch of {kind.name}", seq, colours)
        _floors(axes[1, column], work, longest)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png")


def _mask(axes: Any, kind: Kind, where: str, seq: int, colours: Any) -> None:
    seq_k = keys_of(kind, seq)
    drawing = picture(kind, seq, seq_k, CELLS)
    strength = np.where(drawing.shares > 0, LEAST + (1 - LEAST) * drawing.shares, 0)
    axes.imshow(
        strength, cmap=colours, vmin=0, vmax=1, extent=(0, seq_k, seq, 0), aspect="auto", interpolation="nearest"
    )
    title = f"{kind.name}: {where}\n{layers.sees(kind)}"
    if drawing.assumed:
        title += f"\n(drawn as if {', '.join(drawing.assumed)})"
    axes.set_title(title, fontsize=9, wrap=True)
    axes.set_xlabel("key j" if kind.compress is None else "compressed key j", fontsize=8)
    axes.set_ylabel("query i", fontsize=8)
    axes.set_xticks(_quarters(seq_k))
    axes.set_yticks(_quarters(seq))
    axes.tick_params(labelsize=7)


def _quarters(length: int) -> list[int]:
    return [0, length // 4, length // 2, 3 * length // 4, length]


def _floors(axes: Any, work: Work, longest: float) -> None:
    """Bars of the least times, on the same scale for every kind."""
    times = [work.limits[limit] for limit in LIMITS]  # type: ignore[index]
    amounts = [quantity(work.flops, "FLOP"), quantity(work.bytes, "B"), quantity(work.exps, "").strip()]
    bars = axes.barh(LIMITS, times, color=[SEEN if limit == work.bound else "#b6c2cf" for limit in LIMITS])
    axes.bar_label(
        bars, [f" {duration(ms)}  ({amount})" for ms, amount in zip(times, amounts, strict=True)], fontsize=7
    )
    axes.set_xlim(0, 1.9 * longest)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.tick_params(labelsize=8, length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title(f"least time; {share(work.pairs, work.all_pairs)} of the pairs are visible", fontsize=8)


def _matplotlib() -> tuple[Any, Any]:
    """The Figure class, which needs no display, and the colours of shares."""
    try:
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("--png needs matplotlib, which is not installed; pip install 'attngen[reports]'") from None
    return Figure, LinearSegmentedColormap.from_list("seen", ["#f6f8fa", "#8db8f5", SEEN])

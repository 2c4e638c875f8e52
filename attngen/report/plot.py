"""Pictures of masks and what they cost, as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attngen.errors import UsageError
from attngen.plan import plan_forward
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
    """Write to ``path`` one column a kind: its mask, and beneath it the least time each limit of ``target`` allows."""
    figure_class, colours = _matplotlib()
    figure = figure_class(figsize=(4.6 * len(kinds) + 0.6, 6.6), layout="constrained")
    figure.suptitle(f"{spec.name}: batch {batch}, {seq} x {seq}, on {target.name}", fontsize=12)
    axes = figure.subplots(2, len(kinds), squeeze=False, height_ratios=(4.4, 1))
    works = [work_of(plan_forward(decided(kind)[0]), batch, seq, seq, target) for kind in kinds]
    longest = max(work.floor_ms for work in works)
    for column, (kind, work) in enumerate(zip(kinds, works, strict=True)):
        _mask(axes[0, column], spec, kind, seq, colours)
        _floors(axes[1, column], work, longest)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png")


def _mask(axes: Any, spec: Spec, kind: Kind, seq: int, colours: Any) -> None:
    drawing = picture(kind, seq, seq, CELLS)
    strength = np.where(drawing.shares > 0, LEAST + (1 - LEAST) * drawing.shares, 0)
    axes.imshow(strength, cmap=colours, vmin=0, vmax=1, extent=(0, seq, seq, 0), interpolation="nearest")
    of_kind = layers.layers_of(spec, kind.name)
    title = f"{kind.name}: layers {layers.compressed(of_kind)}\n{layers.sees(kind)}"
    if drawing.assumed:
        title += f"\n(drawn as if {', '.join(drawing.assumed)})"
    axes.set_title(title, fontsize=9, wrap=True)
    axes.set_xlabel("key j", fontsize=8)
    axes.set_ylabel("query i", fontsize=8)
    ticks = [0, seq // 4, seq // 2, 3 * seq // 4, seq]
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.tick_params(labelsize=7)


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

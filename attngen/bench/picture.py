"""The roofline of one results file as a picture: what each case could reach at most, and what was reached."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from attngen.bench.cases import FP8, SUITES
from attngen.bench.labels import Box, leader, place, samples
from attngen.bench.results import is_results, read
from attngen.bench.sparse_cases import SPARSE
from attngen.bench.tables import ROOFLINE, TITLES
from attngen.errors import UsageError

OURS = "attngen"
# Under other roofs than that of 16 bits, and backward passes, whose cases are called as the forward ones are.
ELSEWHERE = {FP8.name, *(suite.name for suite in (*SPARSE, *SUITES["backward"], *SUITES["packed"]))}
COLOURS = {OURS: "#0b57d0", "fa4": "#e59aa6", "fa3": "#f2b774", "flex": "#a9cfa4"}  # ours is drawn last
SHAPES = (("D64", "o", "D64"), ("D128", "s", "D128"), ("D", "D", "wider heads"), ("", "^", "windows"))  # by beginnings
INK, PALE, FAINT = "#24292f", "#8c959f", "#eaeef2"
SIZE_INCHES, DPI, FONT = (9.6, 6.6), 100, 9
MARK = 5.0  # pixels from the middle of a marker to its edge
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 300, 400, 500, 600, 800, 1000, 1500, 2000, 3000)


class Mark(NamedTuple):
    """One time: its system and case, FLOP for each byte, and TFLOP/s."""

    system: str
    case: str
    x: float
    y: float


def draw(results: dict[str, Any], path: Path) -> list[Box]:
    """Write the picture to ``path``, in the format that its suffix names; where our labels are, in pixels."""
    figure_class, canvas_class, settings = _matplotlib()
    limits = results.get("limits")
    marks = _marks(results["rows"])
    if not limits or not any(mark.system == OURS for mark in marks):
        raise UsageError("the picture needs results with 'limits' and with times of attngen's")
    with settings({"svg.hashsalt": "attngen", "font.size": FONT, "axes.edgecolor": PALE, "text.color": INK}):
        figure = figure_class(figsize=SIZE_INCHES, dpi=DPI, layout="constrained", facecolor="white")
        canvas = canvas_class(figure)
        axes = figure.add_subplot()
        axes.set_title(f"{results['device']}: what was reached of the chip's limits", fontsize=FONT + 2, loc="left")
        _frame(axes, marks, limits)
        for system in reversed(COLOURS):
            for mark in marks:
                if mark.system == system:
                    _draw_mark(axes, mark)
        _legend(axes, marks)
        canvas.draw()  # only now is it known where things are
        figure.set_layout_engine("none")
        _name_roof(axes, limits)
        boxes = _label(axes, canvas.get_renderer(), marks)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI, metadata={"Date": None} if path.suffix == ".svg" else None)
    return boxes


def short(case: str) -> str:
    """``D64 causal S8192`` as ``D64 causal 8K``."""
    return re.sub(r"\bS(\d+)$", lambda found: _thousands(int(found.group(1))), case)


def _thousands(length: int) -> str:
    return f"{length // 1024}K" if length % 1024 == 0 else str(length)


def _marks(rows: Sequence[dict[str, Any]]) -> list[Mark]:
    """The times to draw: of forward attention in 16 bits, which has one roof."""
    return [
        Mark(row["system"], row["case"], row["tflops"] / row["gbps"] * 1e3, row["tflops"])
        for row in rows
        if row.get("ms") and row.get("gbps") and row["system"] in COLOURS and row["suite"] not in ELSEWHERE
    ]


def _frame(axes: Any, marks: Sequence[Mark], limits: dict[str, Any]) -> None:
    """Axes around all marks, and the roof: the memory's slope, then the matrix products' ceiling."""
    peak, bandwidth = limits["bf16_tflops"], limits["hbm_gbps"] / 1e3
    ridge = peak / bandwidth
    across, up = [mark.x for mark in marks] + [ridge], [mark.y for mark in marks] + [peak]
    left, right = min(across) / 1.8, max(across) * 1.9
    low, high = min(up) / 1.25, max(up) * 1.22
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, high))
    start = max(left, low / bandwidth)
    axes.plot([start, ridge, right], [start * bandwidth, peak, peak], color=INK, linewidth=1.4, zorder=2)
    axes.set_xlabel("FLOP for each byte that the pattern must move")
    axes.set_ylabel("TFLOP/s")
    for set_ticks, ticks, (least, most) in (
        (axes.set_xticks, [2**n for n in range(20)], (left, right)),
        (axes.set_yticks, TICKS, (low, high)),
    ):
        shown = [tick for tick in ticks if least <= tick <= most]
        set_ticks(shown, [str(tick) for tick in shown])
        set_ticks([], minor=True)
    axes.grid(color=FAINT, linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, length=0)


def _name_roof(axes: Any, limits: dict[str, Any]) -> None:
    """Each limit beside its line, along it."""
    start, ridge, _ = axes.lines[0].get_xydata()
    (x0, y0), (x1, y1) = axes.transData.transform([start, ridge])
    middle = [math.sqrt(a * b) for a, b in zip(start, ridge, strict=True)]
    along = {"textcoords": "offset points", "rotation_mode": "anchor", "va": "bottom"}
    angle = math.degrees(math.atan2(y1 - y0, x1 - x0))
    bandwidth = f"{limits['hbm_gbps'] / 1e3:.3g} TB/s, memory"
    axes.annotate(bandwidth, middle, xytext=(-3, 3), rotation=angle, ha="center", **along)
    axes.annotate(f"{limits['bf16_tflops']:.0f} TFLOP/s, matrix products", ridge, xytext=(0, 4), ha="left", **along)


def _shape(case: str) -> tuple[str, str]:
    """The marker of a case, and what it stands for."""
    return next((shape, name) for start, shape, name in SHAPES if case.startswith(start))


def _draw_mark(axes: Any, mark: Mark) -> None:
    ours = mark.system == OURS
    axes.plot(
        [mark.x],
        [mark.y],
        marker=_shape(mark.case)[0],
        markersize=6.5 if ours else 6,
        color=COLOURS[mark.system],
        markeredgecolor="white",
        markeredgewidth=0.6,
        linestyle="none",
        zorder=5 if ours else 4,
    )


def _legend(axes: Any, marks: Sequence[Mark]) -> None:
    """Colours are systems, shapes are kinds of case; in the corner where nothing is measured."""
    systems = {mark.system for mark in marks}
    shapes = {_shape(mark.case) for mark in marks}
    entries = [("o", colour, TITLES[name]) for name, colour in COLOURS.items() if name in systems]
    entries += [(shape, PALE, name) for _, shape, name in SHAPES if (shape, name) in shapes]
    handles = [
        axes.plot([], [], marker=shape, linestyle="none", color=colour, label=label)[0]
        for shape, colour, label in entries
    ]
    axes.legend(handles=handles, loc="lower right", ncols=2, frameon=False)


def _label(axes: Any, renderer: Any, marks: Sequence[Mark]) -> list[Box]:
    """The name of each case beside our mark, with a line where it stands apart."""

    def pixels(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y))
        return float(across), float(up)

    def box_of(artist: Any) -> Box:
        extent = artist.get_window_extent(renderer)
        return Box(extent.x0, extent.y0, extent.x1, extent.y1)

    obstacles = [Box(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in (pixels(mark.x, mark.y) for mark in marks)]
    roof = [pixels(x, y) for x, y in axes.lines[0].get_xydata()]
    for start, end in pairwise(roof):
        obstacles += [Box(x - 2, y - 2, x + 2, y + 2) for x, y in samples(start, end)]
    others = [box_of(artist) for artist in (*axes.texts, axes.get_legend())]
    ours = [mark for mark in marks if mark.system == OURS]
    texts = [axes.text(mark.x, mark.y, short(mark.case), zorder=6) for mark in ours]
    extents = [box_of(text) for text in texts]
    points = [pixels(mark.x, mark.y) for mark in ours]
    sizes = [(box.x1 - box.x0, box.y1 - box.y0) for box in extents]
    boxes = place(points, sizes, obstacles, box_of(axes.patch), others)
    to_data = axes.transData.inverted().transform
    for mark, point, text, extent, box in zip(ours, points, texts, extents, boxes, strict=True):
        # A text's own point is not quite its box's corner: it is moved by as much as the box is.
        text.set_position(to_data((point[0] + box.x0 - extent.x0, point[1] + box.y0 - extent.y0)))
        if len(leader(point, box)) > 3:
            end = to_data(box.nearest(point))
            axes.plot([mark.x, end[0]], [mark.y, end[1]], color=PALE, linewidth=0.7, zorder=3)
    return boxes


def _matplotlib() -> tuple[Any, Any, Any]:
    """The Figure class and a canvas, which need no display, and a context of settings."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(
            "the picture needs matplotlib, which is not installed; pip install 'attngen[reports]'"
        ) from None
    return Figure, FigureCanvasAgg, rc_context


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m attngen.bench.picture benchmarks/results/h200.json benchmarks/results/h200-roofline.svg``

    Without a picture's name one is drawn beside each of the results; other JSON is passed over.
    """
    given = [Path(name) for name in (sys.argv[1:] if arguments is None else arguments)]
    if not given or given[0].suffix != ".json":
        raise SystemExit("usage: python -m attngen.bench.picture RESULTS.json PICTURE.svg, or RESULTS.json ...")
    if len(given) == 2 and given[1].suffix != ".json":
        draw(read(given[0]), given[1])
        return
    for file in given:
        if is_results(json.loads(file.read_text(encoding="utf-8"))):
            draw(read(file), file.with_name(f"{file.stem}{ROOFLINE}"))


if __name__ == "__main__":
    main()

"""Tunings as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import jinja2

import attngen
from attngen.report import layers
from attngen.report.configs import brief
from attngen.report.quantities import digits, duration, quantity
from attngen.report.tunings import Tuning
from attngen.resources import resource_dir
from attngen.spec.model import Spec
from attngen.target import Target


def page(rows: list[Tuning], target: Target, spec: Spec | None = None) -> str:
    """The page for ``rows``, a section for each kernel of a kind."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_dir("templates") / "report"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
    )
    name = spec.name if spec is not None else "All specs"
    return environment.get_template("tunings.html").render(
        title=f"{name} on {target.name}",
        subtitle=_limits(target),
        sections=[_section(list(group), spec) for _, group in groupby(rows, key=lambda row: (row.spec, row.title))],
        footer=f"attngen {attngen.__version__}; the roofline is the longest of the times that matrix products, memory "
        "and exponentials need at least.",
    )


def _limits(target: Target) -> str:
    return (
        f"{target.sms} SMs; {quantity(target.rates.bfloat16, 'FLOP/s')} in bfloat16 and "
        f"{quantity(target.memory_bandwidth, 'B/s')}, {target.figures}"
    )


def _section(rows: list[Tuning], spec: Spec | None) -> dict[str, Any]:
    first = rows[0]
    subtitle = first.best.description
    if spec is not None:
        kind = spec.kind(first.kind)
        subtitle = (
            f"layers {layers.compressed(layers.layers_of(spec, kind.name))}; query i sees key j when "
            f"{layers.sees(kind)}; {layers.heads(kind)} heads, head_dim {layers.head_dim(kind)}, {kind.dtype}"
        )
    title = first.title if spec is not None else f"{first.spec}: {first.title}"
    return {"title": title, "subtitle": subtitle, "rows": [_cells(row) for row in rows]}


def _cells(row: Tuning) -> dict[str, Any]:
    p = row.problem
    return {
        "size": f"{p.batch} x {p.seq_q} x {p.seq_k}",
        "time": duration(row.best.median_ms),
        "spread": duration(row.best.spread_ms) if row.best.source == "measured" else "",
        "tflops": "" if row.tflops is None else digits(row.tflops),
        "gbps": "" if row.gbps is None else digits(row.gbps),
        "percent": None if row.share is None else round(100 * row.share),
        "origin": row.origin,
        "config": brief(row.config),
    }

"""Numbers as people read them: three digits and a unit that fits."""

from __future__ import annotations

import math

PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def quantity(value: float, unit: str) -> str:
    """``1.76 TFLOP``, ``201 MB``, ``512 B``."""
    for factor, prefix in PREFIXES:
        if abs(value) >= 0.9995 * factor:
            return f"{digits(value / factor)} {prefix}{unit}"
    return f"{digits(value)} {unit}"


def duration(ms: float | None) -> str:
    """``0.241 ms``, ``3.30 us``, ``2.10 s``."""
    if ms is None or not math.isfinite(ms):
        return "-"
    if ms >= 999.5:
        return f"{digits(ms / 1e3)} s"
    return f"{digits(ms)} ms" if ms >= 0.1 else f"{digits(ms * 1e3)} us"


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    exponent = int(f"{value:.2e}".partition("e")[2])  # of the rounded value: 99.96 is 100
    places = max(0, 2 - exponent)
    return f"{value:.{places}f}"


def share(part: float, whole: float) -> str:
    """``37%``, ``1.57%``, ``0.02%``."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.0f}%" if percent >= 9.95 or percent == 0 else f"{percent:.2g}%"

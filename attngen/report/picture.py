"""A mask as a picture: the share of visible pairs in each cell of a square, and that square as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from rich.color import Color
from rich.style import Style
from rich.text import Text

from attngen.plan.attention import run_time_arguments
from attngen.plan.work import first_position
from attngen.reference import visible
from attngen.report.decided import decided
from attngen.spec.model import Kind
from attngen.spec.nodes import Scalar, Tensor, walk

SAMPLES = 8  # queries of a cell that are looked at
MOST_PAIRS = 1 << 25  # looked at in all, so that long sequences stay quick
SHADES = " ░▒▓█"
EMPTY, FULL = (32, 38, 48), (120, 200, 255)  # RGB of a cell with no visible pair, and with all


@dataclass(frozen=True)
class Picture:
    """Shares of visible pairs, [cells of queries, cells of keys]; and what was taken for what only a call says."""

    shares: np.ndarray
    seq_q: int
    seq_k: int
    assumed: tuple[str, ...]


def picture(kind: Kind, seq_q: int, seq_k: int, cells: int) -> Picture:
    """What head 0 of one sequence sees, in at most ``cells`` by ``cells`` cells."""
    drawn, _ = decided(kind)
    given, assumed = _assumed(drawn, seq_k)
    rows, columns = _edges(seq_q, cells), _edges(seq_k, cells)
    samples = int(np.clip(MOST_PAIRS // ((len(rows) - 1) * seq_k), 1, SAMPLES))
    shares = []
    for first, end in pairwise(rows):
        looked = np.unique(np.linspace(first, end - 1, min(samples, end - first)).round().astype(int))
        seen = [_row(drawn, query + first_position(kind, seq_q, seq_k), seq_k, given) for query in looked]
        shares.append(np.mean([np.add.reduceat(row, columns[:-1]) / np.diff(columns) for row in seen], axis=0))
    return Picture(np.array(shares), seq_q, seq_k, tuple(assumed))


def _row(kind: Kind, position: int, seq_k: int, given: dict[str, Any]) -> np.ndarray:
    offsets = torch.tensor([position], dtype=torch.int32)
    return visible(kind, 1, seq_k, offsets=offsets, **given)[0].numpy().astype(np.float64)


def _edges(length: int, cells: int) -> np.ndarray:
    return np.linspace(0, length, min(cells, length) + 1).round().astype(int)


def _assumed(kind: Kind, seq_k: int) -> tuple[dict[str, Any], list[str]]:
    """Values for what a mask takes at call time, and a phrase for each."""
    used = set() if kind.mask is None else {n.id for n in walk(kind.mask.tree) if isinstance(n, (Scalar, Tensor))}
    values: dict[str, Any] = {}
    words = []
    for argument in run_time_arguments(kind):
        if argument.name == "prefix":
            values["prefix"] = torch.tensor([seq_k // 2], dtype=torch.int32)
            words.append(f"prefix is {seq_k // 2}")
        elif argument.name in used and argument.shape == "scalar":
            values[argument.name] = seq_k // 8
            words.append(f"{argument.name} is {seq_k // 8}")
        elif argument.name in used:
            values[argument.name] = torch.zeros([1] * argument.rank, dtype=torch.int64)
            words.append(f"{argument.name} is 0 everywhere")
    return values, words


def framed(drawing: Picture, colour: bool) -> list[Text]:
    """The picture with its frame and the positions at its corners; in shades of letters, or of colours."""
    body = _in_colour(drawing.shares) if colour else _in_shades(drawing.shares)
    width = body[0].cell_len
    last_q, last_k = str(drawing.seq_q - 1), str(drawing.seq_k - 1)
    margin = max(len(last_q), len("query"))
    head = f"0{'key':^{max(width - 1 - len(last_k), 0)}}{last_k}" if width > len(last_k) + 6 else last_k.rjust(width)
    labels = ["0", *[""] * (len(body) - 2), last_q] if len(body) > 1 else [last_q]
    if len(body) > 4:
        labels[len(body) // 2] = "query"
    pad = " " * margin
    lines = [Text(f"{pad}  {head}"), Text(f"{pad} ┌{'─' * width}┐")]
    lines += [Text.assemble(f"{label:>{margin}} │", row, "│") for label, row in zip(labels, body, strict=True)]
    return [*lines, Text(f"{pad} └{'─' * width}┘")]


def _in_shades(shares: np.ndarray) -> list[Text]:
    """Two letters a cell, so that cells are about square."""
    return [Text("".join(2 * _shade(share) for share in row)) for row in shares]


def _shade(share: float) -> str:
    """Blank is none and a full block is all; what lies between is never shown as either."""
    if share <= 0 or share >= 1:
        return SHADES[-1] if share >= 1 else SHADES[0]
    return SHADES[1 + min(int(share * 3), 2)]


def _in_colour(shares: np.ndarray) -> list[Text]:
    """Half a letter a cell: the upper one in its foreground, the lower one in its background."""
    lines = []
    for top in range(0, len(shares), 2):
        below: Sequence[float] = shares[top + 1] if top + 1 < len(shares) else [0.0] * shares.shape[1]
        line = Text()
        for upper, lower in zip(shares[top], below, strict=True):
            line.append("▀", Style(color=_colour(upper), bgcolor=_colour(lower)))
        lines.append(line)
    return lines


def _colour(share: float) -> Color:
    """Between empty and full, and apart from both where the share is."""
    strength = round(share) if share <= 0 or share >= 1 else 0.25 + 0.6 * share
    return Color.from_rgb(*(round(a + (b - a) * strength) for a, b in zip(EMPTY, FULL, strict=True)))

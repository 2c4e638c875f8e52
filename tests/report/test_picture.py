"""Pictures show the reference's mask, and never show some as none or as all."""

from itertools import pairwise

import numpy as np
import pytest

from attngen.reference import visible
from attngen.report.picture import Picture, framed, picture
from attngen.spec import parse_spec

FIELDS = [
    "causal: true",
    "window: {left: 9, right: 2}",
    "chunk: 7",
    "dilation: 3",
    "global_tokens: 2, window: {half: 3}",
]


def kind_of(fields):
    return parse_spec("{heads: 2, head_dim: 16, " + fields + "}").kinds[0]


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize(("seq_q", "seq_k", "cells"), [(24, 24, 6), (10, 33, 4), (5, 3, 8)])
def test_shares_are_those_of_the_mask(fields, seq_q, seq_k, cells):
    kind = kind_of(fields)
    drawing = picture(kind, seq_q, seq_k, cells)
    seen = visible(kind, seq_q, seq_k).numpy().astype(float)
    rows = np.linspace(0, seq_q, min(cells, seq_q) + 1).round().astype(int)
    columns = np.linspace(0, seq_k, min(cells, seq_k) + 1).round().astype(int)
    wanted = [[seen[a:b, c:d].mean() for c, d in pairwise(columns)] for a, b in pairwise(rows)]
    assert np.allclose(drawing.shares, wanted)


def test_long_sequences_are_sampled():
    drawing = picture(kind_of("causal: true"), 1 << 20, 1 << 20, 4)
    assert drawing.shares.shape == (4, 4)
    assert drawing.shares[0, 3] == 0 and drawing.shares[3, 0] == 1
    assert np.allclose(np.diag(drawing.shares), 0.5, atol=0.13)


def test_run_time_values_are_assumed_and_said():
    assert picture(kind_of("causal: true, prefix: argument"), 16, 16, 4).assumed == ("prefix is 8",)
    drawing = picture(kind_of('mask: "j > i - reach and doc[b, i] == doc[b, j]"'), 16, 16, 4)
    assert set(drawing.assumed) == {"reach is 2", "doc is 0 everywhere"}
    assert picture(kind_of('score: "s * t"'), 16, 16, 4).assumed == ()


def test_shades():
    drawing = Picture(np.array([[0.0, 0.001, 0.34], [0.5, 0.999, 1.0]]), 2, 3, ())
    assert [line.plain for line in framed(drawing, colour=False)] == [
        "            2",
        "      ┌──────┐",
        "    0 │  ░░▒▒│",
        "    1 │▒▒▓▓██│",
        "      └──────┘",
    ]


def test_colours_tell_some_from_none_and_from_all():
    drawing = Picture(np.array([[0.0, 0.001, 0.999, 1.0]] * 3), 3, 4, ())
    lines = framed(drawing, colour=True)
    assert len(lines) == 2 + 2 + 1  # two rows of cells a line, and the last of an odd number alone
    first = [span.style.color.triplet for span in lines[2].spans]
    assert len(set(first)) == 4

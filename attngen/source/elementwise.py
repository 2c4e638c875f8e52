"""What is done to each element of a tile of scores, as lines of Triton: row bounds, the mask, the score."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import sympy as sp

from attngen.plan.attention import AttentionPlan
from attngen.plan.keys import Bound, Dilation, I, Term
from attngen.source import elements, scalars
from attngen.source.elements import COLUMN
from attngen.source.text import call, conjunction
from attngen.spec.nodes import Name, walk

WEIGHT_BITS = 8.0  # 2 ** 8 is the largest power of two that e4m3 holds


@dataclass(frozen=True)
class Assignment:
    """A name, its value as Triton, and why."""

    name: str
    value: str
    comment: str = ""


@dataclass(frozen=True)
class Tile:
    """How a tile of scores lies: the positions of its rows and of its columns, i of queries and j of keys.

    ``symbols`` renames those of the algebra, which calls the row's position i.
    """

    row: str = "i"
    column: str = "j"
    packed: bool = False  # rows are queries of several heads
    symbols: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def names(self) -> dict[str, str]:
        """What expressions of single elements call their values."""
        across = {self.row: f"{self.row}[:, None]", self.column: f"{self.column}[None, :]"}
        here = {"h": "h[:, None]" if self.packed else "h", "b": "batch", "s": "s", COLUMN: across[self.column]}
        return across | here

    @property
    def of_columns(self) -> str:
        return self.names[self.column]

    @property
    def distance(self) -> str:
        return f"{self.names['i']} - {self.names['j']}"


BY_QUERY = Tile()
BY_KEY = Tile(
    "j",
    "i",
    symbols={
        "i": "j",
        "i_first": "j_first",
        "i_last": "j_last",
        "key_first": "query_first",
        "key_end": "query_end",
    },
)


def merged(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    """Terms that are an upper bound alone become one: j < max of the bounds."""
    heads = [term for term in terms if not term.lowers and not term.residual]
    if len(heads) < 2:
        return terms
    first = replace(heads[0], uppers=(Bound(sp.Max(*(term.row_upper() for term in heads))),))
    return tuple(first if term is heads[0] else term for term in terms if term is heads[0] or term not in heads)


def row_bounds(
    terms: tuple[Term, ...], tile: Tile = BY_QUERY, valid: str = ""
) -> tuple[list[Assignment], list[list[str]]]:
    """Assignments made once a tile, and for each term the comparisons of a column's position that use them.

    ``valid``: a condition of rows; one that is not sees no column.
    """
    bounds: list[Assignment] = []
    visible: list[list[str]] = []
    for n, term in enumerate(terms):
        suffix = "" if len(terms) == 1 else f"_{n}"
        tests = []
        for name, relation, expression, present in (
            ("row_first", ">=", term.row_lower(), bool(term.lowers)),
            ("row_end", "<", term.row_upper(), True),
        ):
            if not present:
                continue
            text = scalars.write(expression, tile.symbols)
            cut = bool(valid) and name == "row_end"
            if cut:
                text = f"tl.where({valid}, {text}, position)"
            if cut or I in expression.free_symbols:
                bounds.append(Assignment(f"{name}{suffix}", text))
                tests.append(f"({tile.of_columns} {relation} {name}{suffix}[:, None])")
            elif expression.is_Symbol:
                tests.append(f"({tile.of_columns} {relation} {text})")
            else:
                bounds.append(Assignment(f"{name}{suffix}", text))
                tests.append(f"({tile.of_columns} {relation} {name}{suffix})")
        visible.append(tests)
    return bounds, visible


def visible_lines(
    terms: tuple[Term, ...], visible: list[list[str]], tile: Tile, indent: int, listed: bool = False
) -> list[str]:
    """The elementwise mask: the reads its tests need, then one condition a term, united."""
    reads = elements.Reads()
    united = []
    for n, (term, tests) in enumerate(zip(terms, visible, strict=True)):
        for test in term.residual:
            if isinstance(test, Dilation):
                tests = [*tests, f"(({tile.distance}) % {test.step} == 0)"]
            else:
                tests = [*tests, f"({elements.write(test, tile.names, reads)})"]
        united.append(conjunction("visible", "|=" if n else "=", tests, indent))
    if listed:
        united.append(f"{' ' * indent}visible &= {tile.of_columns} < end  # the next block may not be listed")
    return read_lines(reads, indent) + united


def read_lines(reads: elements.Reads, indent: int) -> list[str]:
    return [call(f"{name} = {helper}", arguments, indent) for (helper, *arguments), name in reads.calls.items()]


def score_lines(plan: AttentionPlan, tile: Tile) -> list[str]:
    """What is done to the products before the softmax; nothing when only a scale is, which the exponential takes."""
    kind = plan.kind
    if plan.plain_scores:
        return []
    scale, rows = ("score_scale", "[:, None]" if tile.packed else "") if kind.quantised else ("SOFTMAX_SCALE", "")
    if kind.softcap is not None:
        lines = [f"s = SOFTCAP * tanh(s * ({scale} / SOFTCAP){rows})"]
    else:
        lines = [f"s = s * {scale}{rows}"]
    if kind.alibi:
        slope = "slope[:, None]" if tile.packed else "slope"
        lines.append(f"s = s - {slope} * tl.abs({tile.distance})  # ALiBi")
    lines = [f"    {line}" for line in lines]
    if kind.score is not None:
        reads = elements.Reads()
        text = elements.write(kind.score.tree, tile.names, reads)
        if not any(isinstance(node, Name) and node.id == "s" for node in walk(kind.score.tree)):
            text = f"tl.zeros_like(s) + ({text})"
        lines += [f"    # The spec's score: {kind.score.text}", *read_lines(reads, 4), f"    s = {text}"]
    return lines


def exponential_scales(plan: AttentionPlan, packed: bool) -> dict[str, str]:
    """What scores are multiplied by in the exponential, by row and by element, and what is subtracted from them there.

    Scales that a call gives are loaded, and belong to a row's head; weights of 8 bits are shifted into their range.
    """
    loaded = plan.kind.quantised and plan.plain_scores
    rows = "exp_scale" if loaded else "EXP_SCALE"
    return {
        "exp_scale": rows,
        "exp_scale_of_elements": f"{rows}[:, None]" if loaded and packed else rows,
        "shift_of_elements": "(shift - WEIGHT_BITS)[:, None]" if plan.kind.quantised else "shift[:, None]",
    }

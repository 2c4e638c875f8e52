"""Typed readings of a document's nodes: each gives a value or an error that says what was found and what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from attngen.errors import SpecError, did_you_mean, one_of
from attngen.spec.document import Fields, Node, Text

INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
REAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
NULLS = ("", "~", "null", "Null", "NULL")
FLAGS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
MAX_INTEGER = 2**31 - 1
MAX_DIGITS = 24


def wrong(node: Node, what: str, right: str) -> SpecError:
    """The error for a node of the wrong type or value."""
    given = node.shown
    if isinstance(node, Text) and (is_number(node) or is_flag(node)):
        given = given.strip("'")
    return node.place.error(f"{what} is {'null' if is_null(node) else given}", f"{right} would be right")


def is_null(node: Node) -> bool:
    """Whether the value is null, by name or by being left empty."""
    return isinstance(node, Text) and node.plain and node.text in NULLS


def is_flag(node: Node) -> bool:
    """Whether the value is true or false."""
    return isinstance(node, Text) and node.plain and node.text in FLAGS


def is_number(node: Node) -> bool:
    """Whether the value is a number."""
    return isinstance(node, Text) and node.plain and (is_integer(node) or REAL.fullmatch(node.text) is not None)


def is_integer(node: Node) -> bool:
    """Whether the value is a whole number."""
    return isinstance(node, Text) and node.plain and INTEGER.fullmatch(node.text) is not None


def whole(node: Node, what: str, low: int = 1, high: int = MAX_INTEGER, instead: str = "") -> int:
    """A whole number from ``low`` to ``high``; ``instead`` names what else the field takes."""
    limits = f"of at least {low}" if high == MAX_INTEGER else f"from {low} to {high}"
    if is_integer(node) and isinstance(node, Text):
        value = int(node.text[:MAX_DIGITS].rstrip("_"))  # cut, it is still too large
        if low <= value <= high:
            return value
        if value > high:
            limits = f"from {low} to {high}"
    raise wrong(node, what, f"a whole number {limits}{instead}")


def positive(node: Node, what: str) -> float:
    """A finite number above zero."""
    if is_number(node) and isinstance(node, Text):
        value = float(node.text)
        if 0 < value < math.inf:
            return value
    raise wrong(node, what, "a finite number above 0")


def flag(node: Node, what: str) -> bool:
    """True or false."""
    if isinstance(node, Text) and is_flag(node):
        return FLAGS[node.text]
    raise wrong(node, what, "true or false")


def choice(node: Node, what: str, names: Sequence[str]) -> str:
    """One of a few words."""
    if isinstance(node, Text) and node.text in names:
        return node.text
    if isinstance(node, Text) and node.text and not (is_number(node) or is_flag(node) or is_null(node)):
        raise node.place.error(f"{what} is {node.shown}", did_you_mean(node.text, names))
    raise wrong(node, what, one_of(names))


def fields(
    node: Node, what: str, example: str, allowed: Sequence[str], required: Sequence[str] = ()
) -> dict[str, Node]:
    """The named parts of a mapping, all of them known and none that is required missing."""
    if not isinstance(node, Fields):
        raise wrong(node, what, example)
    for name, entry in node.entries.items():
        if name not in allowed:
            raise entry.key.place.error(f"unknown field {entry.key.shown} in {what}", did_you_mean(name, allowed))
    for name in required:
        if name not in node.entries:
            raise node.place.error(f"{what} has no '{name}'", f"{example} would be right")
    return {name: entry.value for name, entry in node.entries.items()}

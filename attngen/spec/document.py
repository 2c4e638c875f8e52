"""YAML text to a small tree that remembers where everything stood; no tag, alias or constructor is ever followed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Union

import yaml

from attngen.errors import SpecError

MAX_CHARACTERS = 100_000
MAX_DEPTH = 12
MAX_SHOWN = 40  # characters of the user's own text that a message repeats
YAML_REMEDY = "look at the indentation, brackets and quotes around here"


@dataclass(frozen=True)
class Place:
    """A position in a file, counted from 1."""

    file: str
    line: int
    column: int

    def error(self, problem: str, remedy: str) -> SpecError:
        """The error to raise about what stands here."""
        return SpecError(self.file, self.line, self.column, problem, remedy)


@dataclass(frozen=True)
class Text:
    """A scalar; ``plain`` ones, written without quotes, may be numbers, flags or null."""

    text: str
    plain: bool
    place: Place
    inner: Place | None = None  # where the first character stands, if it and all others are on one line

    @property
    def shown(self) -> str:
        """As a message repeats it."""
        text = self.text if len(self.text) <= MAX_SHOWN else self.text[: MAX_SHOWN - 3] + "..."
        return f"'{text}'" if text or not self.plain else "empty"

    def at(self, offset: int) -> Place:
        """Where the character number ``offset`` stands, as well as that is known."""
        if self.inner is None:
            return self.place
        return Place(self.inner.file, self.inner.line, self.inner.column + offset)


@dataclass(frozen=True)
class Items:
    """A list."""

    values: tuple[Node, ...]
    place: Place
    shown = "a list"


@dataclass(frozen=True)
class Entry:
    """One field of a mapping."""

    key: Text
    value: Node


@dataclass(frozen=True)
class Fields:
    """A mapping from names to nodes, in the order written."""

    entries: dict[str, Entry]
    place: Place
    shown = "a mapping"


Node = Union[Text, Items, Fields]  # noqa: UP007


def read_document(text: str, file: str) -> Fields:
    """The one mapping that a spec file is; SpecError when the text is anything else."""
    if len(text) > MAX_CHARACTERS:
        problem = f"the file has more than {MAX_CHARACTERS} characters"
        raise SpecError(file, 1, 1, problem, "a spec is a few lines that describe one model's attention")
    try:
        node = _Builder(file, text).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = error.problem or error.context or "it cannot be read"
        remedy = "indent with spaces" if "'\\t'" in problem else YAML_REMEDY
        raise SpecError(file, line, column, f"not valid YAML: {problem}", remedy) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        problem = f"character {chr(error.character)!a} in the file"
        raise SpecError(file, line, column, problem, "printable text would be right") from None
    if isinstance(node, Fields):
        return node
    if node is None or node.shown == "empty":
        raise SpecError(file, 1, 1, "the file is empty", "name, heads, head_dim and layers are a start")
    raise node.place.error(f"the file holds {node.shown}", "fields such as 'heads: 12' would be right")


class _Builder:
    """Builds the tree from the parser's events, so that nothing is resolved or constructed on the way."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=yaml.SafeLoader))

    def place(self, mark: Any) -> Place:
        return Place(self.file, mark.line + 1, mark.column + 1)

    def document(self) -> Node | None:
        node = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if node is not None:
                    problem = "a second document begins here"
                    raise self.place(event.start_mark).error(problem, "one file describes one model")
                node = self.node(next(self.events), 1)
        return node

    def node(self, event: Any, depth: int) -> Node:
        place = self.place(event.start_mark)
        if depth > MAX_DEPTH:
            raise place.error(f"nested more than {MAX_DEPTH} deep", "no field goes that deep")
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise place.error("YAML anchors and aliases are not allowed", "write the value out")
        if event.tag is not None:
            raise place.error(f"YAML tag '{event.tag[:MAX_SHOWN]}' is not allowed", "write the value alone")
        if isinstance(event, yaml.ScalarEvent):
            return self.text(event, place)
        if isinstance(event, yaml.SequenceStartEvent):
            return Items(tuple(self.node(item, depth + 1) for item in self.until(yaml.SequenceEndEvent)), place)
        entries: dict[str, Entry] = {}
        for key_event in self.until(yaml.MappingEndEvent):
            key = self.node(key_event, depth + 1)
            if not isinstance(key, Text):
                raise key.place.error(f"a field's name is {key.shown}", "a plain name would be right")
            if key.text in entries:
                first = entries[key.text].key.place.line
                raise key.place.error(f"{key.shown} is given twice, first on line {first}", "once would be right")
            entries[key.text] = Entry(key, self.node(next(self.events), depth + 1))
        return Fields(entries, place)

    def until(self, end: type) -> Iterator[Any]:
        for event in self.events:
            if isinstance(event, end):
                return
            yield event

    def text(self, event: Any, place: Place) -> Text:
        quoted = event.style in ("'", '"')
        inner = None
        if event.start_mark.line == event.end_mark.line and event.style not in ("|", ">"):
            inner = Place(place.file, place.line, place.column + quoted)
        return Text(event.value, event.style is None, place, inner)

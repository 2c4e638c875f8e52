"""A spec file to a Spec: its fields read, the defaults spread over the kinds, each layer given its kind."""

from __future__ import annotations

import re
from os import PathLike, fspath
from pathlib import Path

from attngen.errors import SpecError, UsageError, did_you_mean
from attngen.spec.branches import check_no_branch, make_branched
from attngen.spec.document import MAX_CHARACTERS, Entry, Fields, Node, Place, Text, read_document
from attngen.spec.fields import LAYER_FIELDS
from attngen.spec.kind import IMPLICIT_KIND, Given, make_kind
from attngen.spec.model import EXTERNAL, Kind, Spec
from attngen.spec.pattern import OTHERWISE, read_layers, read_pattern
from attngen.spec.reading import is_null, wrong

SPEC_FIELDS = ("name", "layers", "kinds", "symbols", "pattern")
MAX_NAME = 64
MAX_KINDS = 64
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
KIND_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
SURFACE = "load spec name kind kinds layer layers op ops source config plan database reference digest device target"
RESERVED_KINDS = frozenset((EXTERNAL, OTHERWISE, *SURFACE.split()))  # patterns and attngen.load's object use these


def load_spec(path: str | PathLike[str]) -> Spec:
    """The spec in the file at ``path``; SpecError says where it is wrong, UsageError that it cannot be read."""
    source = fspath(path)
    try:
        with Path(source).open("rb") as file:
            content = file.read(4 * MAX_CHARACTERS + 1)
    except OSError as error:
        raise UsageError(f"{source}: {error.strerror or 'it cannot be read'}; the path of a spec is needed") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise SpecError(source, line, column, "the file is not UTF-8 text", "save it as UTF-8") from None
    return parse_spec(text, source)


def parse_spec(text: str, source: str = "<string>") -> Spec:
    """The spec that ``text`` describes; ``source`` names it in messages."""
    document = read_document(text, source)
    for field, entry in document.entries.items():
        check_field(field, entry, (*SPEC_FIELDS, *LAYER_FIELDS))
    parts = {field: entry.value for field, entry in document.entries.items()}
    defaults = read_fields(document, own=False)
    kinds = read_kinds(parts.get("kinds"), defaults, document.place)
    names = tuple(kind.name for kind in kinds)
    layers = read_layers(parts["layers"]) if "layers" in parts else None
    if "pattern" in parts:
        layer_kinds = read_pattern(parts["pattern"], names, parts.get("symbols"), layers)
    elif len(kinds) > 1:
        problem = f"there are {len(kinds)} kinds and no pattern to say which layer is which"
        raise document.entries["kinds"].key.place.error(problem, f"'pattern: [{', '.join(names)}]' is one")
    elif "symbols" in parts:
        raise parts["symbols"].place.error("symbols are given without a pattern", "leave symbols out")
    else:
        layer_kinds = names * (layers or 1)
    return Spec(read_name(parts.get("name"), source), len(layer_kinds), kinds, layer_kinds, source)


def check_field(field: str, entry: Entry, allowed: tuple[str, ...]) -> None:
    if field in allowed:
        return
    if field in SPEC_FIELDS:
        raise entry.key.place.error(f"'{field}' inside a kind", "it belongs at the top of the file")
    raise entry.key.place.error(f"unknown field {entry.key.shown}", did_you_mean(field, allowed))


def read_fields(node: Fields, own: bool) -> dict[str, Given]:
    """The fields of ``node`` that describe a layer."""
    return {
        field: Given(LAYER_FIELDS[field](entry.value), entry.key.place, own)
        for field, entry in node.entries.items()
        if field in LAYER_FIELDS
    }


def read_kinds(node: Node | None, defaults: dict[str, Given], top: Place) -> tuple[Kind, ...]:
    if node is None:
        return (complete_kind(IMPLICIT_KIND, top, defaults),)
    example = "{local: {window: {total: 128}}, global: {}}"
    if not isinstance(node, Fields):
        raise wrong(node, "kinds", example)
    if not node.entries:
        raise node.place.error("kinds is empty", f"{example} would be right")
    if len(node.entries) > MAX_KINDS:
        raise node.place.error(f"there are {len(node.entries)} kinds", f"at most {MAX_KINDS} would be right")
    return tuple(read_kind(entry.key, entry.value, defaults) for entry in node.entries.values())


def read_kind(key: Text, node: Node, defaults: dict[str, Given]) -> Kind:
    check_kind_name(key)
    return complete_kind(key.text, key.place, given_for(key, node, defaults))


def check_kind_name(key: Text) -> None:
    if not KIND_NAME.fullmatch(key.text) or len(key.text) > MAX_NAME:
        raise key.place.error(f"kind {key.shown} is not a name", "a letter, then letters, digits and _ would be right")
    if key.text in RESERVED_KINDS:
        raise key.place.error(f"a kind cannot be called {key.shown}, which means something else", "choose another name")


def given_for(key: Text, node: Node, defaults: dict[str, Given]) -> dict[str, Given]:
    """The fields of a kind, or of a branch, over the defaults."""
    if is_null(node):
        return defaults
    if not isinstance(node, Fields):
        raise wrong(node, f"kind '{key.text}'", "fields such as {window: {total: 128}}, or {} for the defaults,")
    for field, entry in node.entries.items():
        check_field(field, entry, tuple(LAYER_FIELDS))
    return {**defaults, **read_fields(node, own=True)}


def complete_kind(name: str, place: Place, given: dict[str, Given]) -> Kind:
    """The kind, and its branches: what it says besides holds for each of them."""
    common = {field: entry for field, entry in given.items() if field != "branches"}
    node = given["branches"].value if "branches" in given else None
    if node is None:
        kind = make_kind(name, place, common)
        check_no_branch(kind, common)
        return kind
    branches = []
    for entry in node.entries.values():
        check_kind_name(entry.key)
        fields = given_for(entry.key, entry.value, common)
        if "branches" in fields:
            raise fields["branches"].place.error("a branch has branches of its own", "list them all in one")
        branches.append((make_kind(entry.key.text, entry.key.place, fields), fields))
    return make_branched(name, place, common, branches)


def read_name(node: Node | None, source: str) -> str:
    """The model's name; without one, the file's."""
    if node is None:
        return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source).stem).strip("-._")[:MAX_NAME] or IMPLICIT_KIND
    if isinstance(node, Text) and NAME.fullmatch(node.text) and len(node.text) <= MAX_NAME:
        return node.text
    raise wrong(node, "name", f"letters, digits, '.', '_' and '-', at most {MAX_NAME},")

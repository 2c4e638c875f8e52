"""Which kind each layer is: a repeated list, a string of symbols, a cadence, or one kind for all."""

from __future__ import annotations

import re
from itertools import cycle, islice

from attngen.errors import did_you_mean
from attngen.spec.document import Fields, Items, Node, Place, Text
from attngen.spec.model import EXTERNAL
from attngen.spec.reading import fields, whole, wrong

OTHERWISE = "otherwise"
MAX_LAYERS = 1024
EVERY = re.compile(r"every ([1-9][0-9]{0,5})(?: from ([0-9]{1,6}))?")
PATTERN_EXAMPLE = "[local, global], LG or {global: every 6 from 5, otherwise: local}"
CADENCE_EXAMPLE = "every 6, or every 6 from 5,"


def read_pattern(node: Node, kinds: tuple[str, ...], symbols: Node | None, layers: int | None) -> tuple[str, ...]:
    """One kind name a layer. Where the file has no ``layers``, one turn of the pattern."""
    if isinstance(node, Fields):
        if symbols is not None:
            raise symbols.place.error("symbols are given, but pattern is a mapping", "leave symbols out")
        return cadence(node, kinds, layers)
    if isinstance(node, Items):
        if symbols is not None:
            raise symbols.place.error("symbols are given, but pattern is a list", "leave symbols out")
        turn = [named_kind(item, kinds) for item in node.values]
    elif isinstance(node, Text) and node.text in (*kinds, EXTERNAL):
        turn = [node.text]
    elif isinstance(node, Text) and node.text.strip():
        turn = spelled(node, read_symbols(symbols, kinds))
    else:
        raise wrong(node, "pattern", PATTERN_EXAMPLE)
    if not turn:
        raise node.place.error("pattern is empty", f"{PATTERN_EXAMPLE} would be right")
    check_length(len(turn), layers, node.place)
    return tuple(islice(cycle(turn), layers or len(turn)))


def check_length(entries: int, layers: int | None, place: Place) -> None:
    """A pattern may be shorter than the layers, and is then repeated; never longer."""
    most = layers or MAX_LAYERS
    if entries > most:
        remedy = f"at most {most} would be right (a shorter one is repeated)"
        raise place.error(f"pattern has {entries} entries" + (f" for {layers} layers" if layers else ""), remedy)


def named_kind(node: Node, kinds: tuple[str, ...]) -> str:
    allowed = (*kinds, EXTERNAL)
    if not isinstance(node, Text):
        raise wrong(node, "an entry of pattern", "the name of a kind")
    if node.text not in allowed:
        raise node.place.error(f"{node.shown} in pattern is no kind", did_you_mean(node.text, allowed))
    return node.text


def read_symbols(node: Node | None, kinds: tuple[str, ...]) -> dict[str, str]:
    """Symbol (upper case) to kind: as the file says, else each kind's first letter where only it has that letter."""
    if node is None:
        letters = [name[0].upper() for name in (*kinds, EXTERNAL)]
        return {
            letter: name for letter, name in zip(letters, (*kinds, EXTERNAL), strict=True) if letters.count(letter) == 1
        }
    if not isinstance(node, Fields):
        raise wrong(node, "symbols", "{L: local, G: global}")
    symbols: dict[str, str] = {}
    for symbol, entry in node.entries.items():
        if len(symbol) != 1 or symbol.isspace():
            raise entry.key.place.error(
                f"symbol {entry.key.shown} is not one character", "L, for example, would be right"
            )
        if symbol.upper() in symbols:
            problem = f"symbol {entry.key.shown} is given twice, in upper and lower case"
            raise entry.key.place.error(problem, "case makes no difference: choose another character")
        symbols[symbol.upper()] = named_kind(entry.value, kinds)
    return symbols


def spelled(node: Text, symbols: dict[str, str]) -> list[str]:
    """The layers that a string such as ``LLG`` spells; spaces may group them."""
    turn = []
    for offset, character in enumerate(node.text):
        if character.isspace():
            continue
        if character.upper() not in symbols:
            known = ", ".join(f"{symbol} for {name}" for symbol, name in symbols.items()) or "none is known"
            problem = f"'{character}' in pattern {node.shown} stands for no one kind"
            raise node.at(offset).error(problem, f"{known}; 'symbols: {{X: name}}' defines others")
        turn.append(symbols[character.upper()])
    return turn


def cadence(node: Fields, kinds: tuple[str, ...], layers: int | None) -> tuple[str, ...]:
    """The layers of ``{global: every 6 from 5, otherwise: local}``: 5, 11, 17, ... are global."""
    parts = fields(node, "pattern", PATTERN_EXAMPLE, (*kinds, EXTERNAL, OTHERWISE))
    otherwise = named_kind(parts.pop(OTHERWISE), kinds) if OTHERWISE in parts else None
    steps = {name: read_every(value, name) for name, value in parts.items()}
    if not steps:
        raise node.place.error("pattern names no kind with a cadence", f"{PATTERN_EXAMPLE} would be right")
    result = []
    for layer in range(layers or max(every for every, _ in steps.values())):
        names = [name for name, (every, first) in steps.items() if layer >= first and (layer - first) % every == 0]
        if len(names) > 1:
            problem = f"pattern makes layer {layer} both {names[0]} and {names[1]}"
            raise parts[names[1]].place.error(problem, "cadences that never meet would be right")
        if not names and otherwise is None:
            problem = f"pattern gives layer {layer} no kind"
            raise node.place.error(problem, f"'{OTHERWISE}: {kinds[0]}', for example, gives it one")
        result.append(names[0] if names else str(otherwise))
    return tuple(result)


def read_every(node: Node, name: str) -> tuple[int, int]:
    """Step and first layer of a cadence."""
    match = EVERY.fullmatch(" ".join(node.text.split())) if isinstance(node, Text) else None
    if match is None:
        raise wrong(node, f"pattern.{name}", CADENCE_EXAMPLE)
    every, first = int(match[1]), int(match[2] or 0)
    if every > MAX_LAYERS:
        raise wrong(node, f"pattern.{name}", CADENCE_EXAMPLE)
    return every, first


def read_layers(node: Node) -> int:
    return whole(node, "layers", 1, MAX_LAYERS)

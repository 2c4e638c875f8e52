"""The statements with which an op checks what comes beside queries, keys and values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attngen.plan.attention import Argument
from attngen.source.text import call

COUNTS = {  # how many values a symbol has
    "b": "q.shape[0]",
    "h": "_SHAPE.heads",
    "i": "k.shape[2] if offsets is None else 0",  # else not known here
    "j": "k.shape[2]",
}


def checks_of(
    function: str,
    arguments: Sequence[Argument],
    q: str = "q",
    needed: Sequence[str] = (),
    reads: Sequence[tuple[str, int, str]] = (),
) -> Iterable[str]:
    """Statements that check, and make contiguous, what comes beside the queries ``q``, keys and values.

    ``needed``: which of offsets and key_range must be given; ``reads``: ``Kind.read_by_symbol``.
    """
    sizes = {"heads": "(_SHAPE.heads,)", "batch": f"({q}.shape[0],)", "range": f"({q}.shape[0], 2)"}
    always = (Argument("offsets", "batch", 1, ""), Argument("key_range", "batch", 2, ""))
    for argument in (*arguments, *always):
        name = argument.name
        given = [f'"{function}"', f'"{name}"', name]
        if argument.shape == "tensor":
            symbols = [[symbol for of, at, symbol in reads if (of, at) == (name, n)] for n in range(argument.rank)]
            each = ", ".join(f"{n}: {_most(read)}" for n, read in enumerate(symbols) if read)
            yield _statement("_common.check_indexed", [*given, str(argument.rank), q, f"{{{each}}}"])
        elif argument.shape == "scalar":
            yield _statement(f"{name} = _common.check_number", given)
        elif argument.shape in ("scale", "kv scale"):
            heads = "heads" if argument.shape == "scale" else "kv_heads"
            yield _statement(f"{name} = _common.check_scale", [*given, f"_SHAPE.{heads}", q])
        else:
            size = sizes["range" if argument.rank == 2 else argument.shape]
            whole = ["integers=True"] if argument.shape == "batch" else []
            optional = argument in always and name not in needed
            if optional:
                yield f"if {name} is not None:"
            indent = 8 if optional else 4
            yield _statement(f"{name} = _common.check_vector", [*given, size, q, *whole], indent)


def _most(symbols: Sequence[str]) -> str:
    """The largest count of values of some symbols."""
    counts = [COUNTS[symbol] for symbol in symbols if symbol != "i" or "j" not in symbols]
    return counts[0] if len(counts) == 1 else f"max({', '.join(counts)})"


def _statement(function: str, arguments: Sequence[str], indent: int = 4) -> str:
    """A call in the body of a function; the template indents its first line by 4."""
    return call(function, arguments, indent)[4:]

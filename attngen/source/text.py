"""Generated text laid out as a formatter would leave it."""

from __future__ import annotations

import re
from collections.abc import Sequence

LINE_LENGTH = 120


def call(function: str, arguments: Sequence[str], indent: int, suffix: str = "") -> str:
    """A call or signature, broken over lines where a formatter would."""
    pad, inner = " " * indent, " " * (indent + 4)
    flat = ", ".join(arguments)
    if len(line := f"{pad}{function}({flat}){suffix}") <= LINE_LENGTH:
        return line
    if len(inner) + len(flat) <= LINE_LENGTH:
        return f"{pad}{function}(\n{inner}{flat}\n{pad}){suffix}"
    lines = "".join(f"{inner}{argument},\n" for argument in arguments)
    return f"{pad}{function}(\n{lines}{pad}){suffix}"


def fold(function: str, prefix: str, count: int) -> str:
    """``f(f(x_0, x_1), x_2)``: a function of two over ``count`` names."""
    text = f"{prefix}0"
    for n in range(1, count):
        text = f"{function}({text}, {prefix}{n})"
    return text


def tidy(text: str) -> str:
    """Blank lines as a formatter would leave them: two between functions, at most one inside, one at the end."""
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n{3,}", "\n\n", text)
    text = re.sub(r"\n+(@triton\.jit)", r"\n\n\n\1", text)
    text = re.sub(r"(:\n|\"\"\"\n)\n+( {4,})", r"\1\2", text)
    return text.strip("\n") + "\n"

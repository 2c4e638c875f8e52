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


def assignment(name: str, value: str, indent: int) -> str:
    """``name = value``, its calls broken over lines where a formatter would."""
    return "\n".join(_broken(f"{name} = ", value, "", indent))


def _broken(before: str, value: str, after: str, indent: int) -> list[str]:
    """The lines of ``value``; what is no call stays on one, however long."""
    pad, inner = " " * indent, " " * (indent + 4)
    function, arguments = _call_parts(value)
    if len(line := pad + before + value + after) <= LINE_LENGTH or not arguments:
        return [line]
    if len(flat := inner + ", ".join(arguments)) <= LINE_LENGTH:
        return [f"{pad}{before}{function}(", flat, f"{pad}){after}"]
    lines = [line for argument in arguments for line in _broken("", argument, ",", indent + 4)]
    return [f"{pad}{before}{function}(", *lines, f"{pad}){after}"]


def _call_parts(text: str) -> tuple[str, list[str]]:
    """The function and the arguments of ``f(a, b)``; no arguments for what is not one call."""
    head, opened, rest = text.partition("(")
    if not opened or not re.fullmatch(r"[\w.]+", head):
        return text, []
    arguments, depth, quoted = [""], 0, False
    for position, character in enumerate(rest):
        quoted ^= character == '"'
        depth += 0 if quoted else (character in "([") - (character in ")]")
        if depth < 0:
            return (head, arguments) if position == len(rest) - 1 else (text, [])
        if character == "," and depth == 0 and not quoted:
            arguments.append("")
        else:
            arguments[-1] += character if arguments[-1] or character != " " else ""
    return text, []


def conjunction(name: str, sign: str, tests: Sequence[str], indent: int) -> str:
    """``name = a & b``, or ``name |= a & b``: a test a line where one line is too long."""
    pad = " " * indent
    bare = tests[0][1:-1] if len(tests) == 1 else " & ".join(tests)
    if len(line := f"{pad}{name} {sign} {bare}") <= LINE_LENGTH or len(tests) == 1:
        return line
    joint = " & " if indent + 4 + len(bare) <= LINE_LENGTH else f"\n{pad}    & "
    return f"{pad}{name} {sign} (\n{pad}    {joint.join(tests)}\n{pad})"


def decorator(unspecialised: Sequence[str], language: str = "triton") -> str:
    """``@triton.jit`` of a kernel whose arguments of these names ask for no compilation by their value."""
    names = [f'"{name}"' for name in unspecialised]
    flat = f"do_not_specialize=[{', '.join(names)}]"
    if len(line := f"@{language}.jit({flat})") <= LINE_LENGTH:
        return line
    if 4 + len(flat) <= LINE_LENGTH:
        return f"@{language}.jit(\n    {flat}\n)"
    lines = "".join(f"        {name},\n" for name in names)
    return f"@{language}.jit(\n    do_not_specialize=[\n{lines}    ]\n)"


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
    text = re.sub(r"\n+(@(?:triton|gluon)\.)", r"\n\n\n\1", text)
    text = re.sub(r"(:\n|\"\"\"\n)\n+( {4,})", r"\1\2", text)
    return text.strip("\n") + "\n"

"""Statements of generated text laid out anew once their indentation is known, as a formatter would leave them."""

from __future__ import annotations

import io
import keyword
import re
import tokenize

from attngen.source.text import LINE_LENGTH, _broken, _call_parts


def laid_out(text: str) -> str:
    """``text`` with every call and assignment of a call broken over lines where, and only where, it is too long."""
    lines = text.splitlines()
    for first, last in reversed(_statements(text)):
        if last == first and len(lines[first]) <= LINE_LENGTH:
            continue
        made = _lay_out("\n".join(lines[first : last + 1]))
        if made is not None:
            lines[first : last + 1] = made
    return "\n".join(lines) + "\n"


def _statements(text: str) -> list[tuple[int, int]]:
    """First and last line of every statement that begins with a name of ours and has no comment inside."""
    found: list[tuple[int, int]] = []
    logical: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.INDENT, tokenize.DEDENT, tokenize.NL) or (
            token.type == tokenize.COMMENT and not logical
        ):
            continue
        if token.type != tokenize.NEWLINE:
            logical.append(token)
            continue
        head, last = logical[0], logical[-1].end[0]
        remarks = [t for t in logical if t.type == tokenize.COMMENT and t.start[0] != last]
        if head.type == tokenize.NAME and not keyword.iskeyword(head.string) and not remarks:
            found.append((head.start[0] - 1, last - 1))
        logical = []
    return found


def _lay_out(statement: str) -> list[str] | None:
    """The lines of one statement; None for what is no call, or too wide in one of its arguments."""
    indent = len(statement) - len(statement.lstrip())
    pad, inner = " " * indent, " " * (indent + 4)
    body, mark, remark = statement.strip().partition("  # ")
    body = re.sub(r"\s*\n\s*", " ", body)
    body = re.sub(r",? ([)\]])", r"\1", re.sub(r"([(\[]) ", r"\1", body))
    if len(line := pad + body + mark + remark) <= LINE_LENGTH:
        return [line]
    if tests := re.fullmatch(r"(\w+ \S?=) \((.* & .*)\)", body):
        parts = _conjuncts(tests[2])
        if len(inner + tests[2]) <= LINE_LENGTH or not all(parts):
            return None
        return [f"{pad}{tests[1]} (", f"{inner}{parts[0]}", *(f"{inner}& {part}" for part in parts[1:]), f"{pad})"]
    target, equals, value = body.rpartition(" = ") if re.match(r"[\w, ]+ = ", body) else ("", "", body)
    function, arguments = _call_parts(value)
    if not arguments or (equals and equals in value):
        return None
    if len(f"{pad}{target}{equals}{function}(") <= LINE_LENGTH:
        made = _broken(f"{target}{equals}", value, mark + remark, indent)
    elif len(f"{pad}{target}{equals}(") <= LINE_LENGTH:
        made = [f"{pad}{target}{equals}(", *_broken("", value, "", indent + 4), f"{pad}){mark}{remark}"]
    else:
        names = [f"{inner}{name}," for name in target.split(", ")]
        made = [f"{pad}(", *names, *_broken(") = ", value, mark + remark, indent)]
    return made if all(len(line) <= LINE_LENGTH for line in made) else None


def _conjuncts(text: str) -> list[str]:
    """The terms of ``a & b & c``, what is in parentheses left whole."""
    parts, depth = [""], 0
    for piece in text.split(" & "):
        parts[-1] += f" & {piece}" if depth else piece
        depth += piece.count("(") - piece.count(")")
        if depth == 0:
            parts.append("")
    return parts[:-1]

"""Errors that a user can cause, as one line; anything else is a fault of ours and keeps its traceback."""

from __future__ import annotations

import sys

import click

from attngen.errors import AttngenError, CallError, NotGeneratedError, SpecError, UsageError, one_line

FAILED, WRONG_INPUT = 1, 2
INPUT_ERRORS = (SpecError, CallError, UsageError, NotGeneratedError)


def message_of(error: Exception) -> str | None:
    """The line to print for ``error``, or None when no user's input explains it."""
    if isinstance(error, SpecError):
        return str(error)  # file:line:column first, as editors expect
    if isinstance(error, AttngenError):
        return f"attngen: {one_line(str(error))}"
    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"attngen: {one_line(f'{where}{error.strerror}')}"
    if _is(error, "torch", "OutOfMemoryError"):
        return "attngen: the GPU has too little memory for these sizes; a smaller --seq or --batch needs less"
    if _is(error, "sqlalchemy.exc", "SQLAlchemyError"):
        reason = getattr(error, "orig", None) or error
        return f"attngen: the tuning database cannot be used: {one_line(str(reason))}; --db names another"
    return None


def status_of(error: Exception) -> int:
    """2 where the input is wrong; 1 where it is right and work on it has failed, a compilation for instance."""
    ours = isinstance(error, AttngenError)
    return WRONG_INPUT if not ours or isinstance(error, INPUT_ERRORS) else FAILED


def _usage(error: click.ClickException) -> str:
    text = one_line(error.format_message()).replace(". Did you mean", "; did you mean").rstrip(".")
    text = text[:1].lower() + text[1:]
    context = getattr(error, "ctx", None)
    if context is None:
        return f"attngen: {text}"
    see = "" if text.endswith("?") else f"; see '{context.command_path} --help'"
    return f"{context.command_path}: {text}{see}"


def _is(error: Exception, module: str, name: str) -> bool:
    """Whether ``error`` is of a library's class, without importing the library."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(error, kind)

"""The ``attngen`` command: its subcommands, and what becomes of every error a user can cause.

Exit status: 0 done; 1 a check, verification or comparison failed; 2 the input is wrong, with one line on stderr.
Command modules import only what is light; torch, triton and SymPy are imported where they are used, so that
``attngen --help`` and ``attngen check`` answer at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

import attngen
from attngen.cli.failures import message_of, status_of
from attngen.cli.group import Commands
from attngen.errors import one_line

INTERRUPTED = 130  # as shells say of a command ended by Ctrl-C


class Application(Commands):
    """The whole command line: every error of ours, of click's or of the system's ends as one line."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = "attngen", **extra: Any) -> Any:  # type: ignore[override]
        extra["standalone_mode"] = False
        sys.exit(self._run(args, prog_name, extra))

    def _run(self, args: Sequence[str] | None, prog_name: str | None, extra: dict[str, Any]) -> int:
        try:
            with _warnings_in_one_line():
                status = super().main(args, prog_name, **extra)
            sys.stdout.flush()
            return status if isinstance(status, int) else 0
        except BrokenPipeError:  # the reader, head for instance, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (click.Abort, KeyboardInterrupt):
            print("attngen: interrupted", file=sys.stderr)
            return INTERRUPTED
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            return 0
        except Exception as error:
            message = message_of(error)
            if message is None:
                raise
            print(message, file=sys.stderr)
            return status_of(error)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.formatwarning = lambda message, *_: f"attngen: warning: {one_line(str(message))}\n"  # type: ignore[assignment]
        try:
            yield
        finally:
            warnings.formatwarning = _FORMAT_WARNING


_FORMAT_WARNING = warnings.formatwarning


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"attngen {attngen.__version__}")
        ctx.exit()


@click.group(cls=Application, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Say which version."
)
def main() -> None:
    """Attention kernels from a YAML pattern: generated, verified, tuned for your GPU, and called from PyTorch.

    \b
    attngen run examples/modernbert-base.yaml     does it all
    attngen explain SPEC                          shows the mask and what it costs

    Exit status: 0 done; 1 a check, verification or comparison failed; 2 the input is wrong.
    """


def _add_commands() -> None:
    from attngen.cli import bench, check, database, explain, generate, importing, run, show, tune, verify

    for module in (run, check, explain, importing, generate, verify, tune, show, bench, database):
        main.add_command(module.command)


_add_commands()

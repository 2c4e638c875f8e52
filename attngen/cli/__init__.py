"""The command line: one file a command, errors and exit statuses in app.py."""

from attngen.cli.app import main

__all__ = ["main"]

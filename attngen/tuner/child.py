"""The far side of a tuner's worker: a process that does what its parent asks until the pipe closes.

Started as ``python -m attngen.tuner.child DESCRIPTOR``, apart from multiprocessing's ways of starting, so that
the program that tunes need not be importable and nothing of it runs twice.
"""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from attngen.errors import AttngenError
from attngen.tuner.bench import Failure, Reply


def serve(connection: Connection) -> None:
    """Answer ``(method, arguments)`` requests to a bench; a ``("bench", (object,))`` request sets it."""
    bench: Any = None
    while True:
        try:
            method, arguments = connection.recv()
        except (EOFError, OSError):
            return
        if method == "bench":
            bench = arguments[0]
            continue
        reply = _answer(bench, method, arguments)
        connection.send(reply)
        if reply.leaving:
            return


def _answer(bench: Any, method: str, arguments: tuple) -> Reply:
    try:
        return Reply(getattr(bench, method)(*arguments))
    except Failure as failure:
        return Reply(status=failure.status, message=failure.message, leaving=not _fit(bench))
    except AttngenError as error:
        return Reply(status="error", message=str(error), leaving=not _fit(bench))
    except Exception as error:
        return Reply(status="error", message=f"{type(error).__name__}: {error}", leaving=not _fit(bench))


def _fit(bench: Any) -> bool:
    try:
        return bool(bench.healthy())
    except Exception:
        return False


def _die_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, however that happens."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(death_signal, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _die_with_parent()
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    if os.getppid() != parent:
        return
    serve(Connection(descriptor))


if __name__ == "__main__":
    main()

"""The near side: processes that compile and measure for us, and that can be killed when they do not answer."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection, wait
from typing import IO, Any

from attngen.errors import one_line
from attngen.tuner.bench import Reply

START_SECONDS = 180.0  # to import torch on a cold disk
KILL_SECONDS = 10.0  # a process that hangs in the driver may outlive its signal; we do not wait for it
LOG_TAIL = 1500  # bytes of a dead worker's output that may say why


class Worker:
    """One child process and at most one request under way."""

    def __init__(self) -> None:
        self._bench = b""
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None
        self._log: IO[bytes] | None = None
        self._deadline = 0.0
        self._told = False  # whether the process has the bench
        self.task: Any = None  # what the caller wants to remember of the request under way
        self._opened = False

    @property
    def busy(self) -> bool:
        return self.task is not None

    @property
    def opened(self) -> bool:
        """Whether the caller found the living process ready to work on the bench."""
        return self._opened and self._process is not None and self._process.poll() is None

    def open(self) -> None:
        """The caller has found it ready."""
        self._opened = True

    def assign(self, bench: Any) -> None:
        """The object whose methods are requested from here on. A request under way is abandoned."""
        if self.busy:
            self.kill()
        self._bench = pickle.dumps(("bench", (bench,)))
        self._told = self._opened = False

    def request(self, task: Any, method: str, *arguments: Any, seconds: float) -> None:
        """Send a request that must be answered within ``seconds``; starts the process when there is none."""
        assert self.task is None
        fresh = self._process is None or self._process.poll() is not None
        if fresh:
            self._start()
        assert self._connection is not None
        self.task = task
        self._deadline = time.monotonic() + seconds + (START_SECONDS if fresh else 0.0)
        with contextlib.suppress(OSError):  # it died at once: the connection reads as ended, and ``answer`` says so
            if not self._told:
                self._connection.send_bytes(self._bench)
                self._told = True
            self._connection.send((method, arguments))

    def answer(self) -> Reply | None:
        """The reply if there is one by now; a dead or late process is ended and gives a failure of its own."""
        assert self.task is not None and self._connection is not None
        try:
            if self._connection.poll(0):
                reply: Reply = self._connection.recv()
                self.task = None
                if reply.leaving:
                    self.kill()
                return reply
        except (EOFError, OSError, pickle.UnpicklingError):
            return self._end("crashed", self._last_words())
        if time.monotonic() > self._deadline:
            return self._end("timeout", "no answer in time; the process was ended")
        return None

    def kill(self) -> None:
        """End the process, if any; the next request starts another."""
        self.task = None
        self._told = self._opened = False
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(KILL_SECONDS)
        if self._log is not None:
            self._log.close()
        self._process = self._connection = self._log = None

    def _start(self) -> None:
        self.kill()
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by kill()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "attngen.tuner.child", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=environment,
            )
        self._connection = Connection(ours.detach())

    def _end(self, status: str, message: str) -> Reply:
        self.kill()
        return Reply(status=status, message=message, leaving=True)

    def _last_words(self) -> str:
        assert self._process is not None and self._log is not None
        try:
            code: int | None = self._process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - LOG_TAIL))
        words = one_line(self._log.read().decode(errors="replace"))
        how = f"signal {-code}" if code is not None and code < 0 else f"status {code}"
        return f"the process ended with {how}: {words}" if words else f"the process ended with {how}"


def wait_for(workers: Iterable[Worker], seconds: float) -> None:
    """Sleep until a busy worker answers, dies or is late; at most ``seconds``."""
    busy = [worker for worker in workers if worker.busy]
    now = time.monotonic()
    timeout = max(0.0, min([seconds, *(worker._deadline - now for worker in busy)]))
    wait([worker._connection for worker in busy if worker._connection is not None], timeout)

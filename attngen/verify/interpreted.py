"""Verification in Triton's interpreter: a child process, because Triton decides at import whether it interprets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from attngen.errors import AttngenError, one_line
from attngen.plan.kernels import launched_plans
from attngen.spec import Spec, dump_spec
from attngen.target import TARGETS, Target
from attngen.verify.finding import Finding

FALLBACK_TARGET = "h100"  # for its space of configs, where the GPU's own is not a name
LOG_TAIL = 2000  # characters of a dead child's output that may say why


class InterpreterError(AttngenError):
    """The child process that interprets ended before its work."""


@dataclass(frozen=True)
class Request:
    """What the child is to verify; travels as JSON."""

    spec: str
    kinds: list[str]
    target: str
    db: str | None
    seqs: list[int]


def verify_interpreted(
    spec: Spec, kinds: list[str], target: Target, *, db: str | None = None, seqs: tuple[int, ...] = ()
) -> Iterator[Finding]:
    """Findings for the kinds named, one by one as the child makes them."""
    for kind in kinds:
        launched_plans(spec.kind(kind), target)  # refuses before a process is started
    name = target.name if target.name in TARGETS else FALLBACK_TARGET
    request = Request(dump_spec(spec), kinds, name, db, list(seqs))
    environment = {
        "OMP_NUM_THREADS": "1",  # the interpreter's products are so small that threads only wait for each other
        **os.environ,
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            [sys.executable, "-m", "attngen.verify"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        ) as child,
    ):
        try:
            assert child.stdin is not None and child.stdout is not None
            with suppress(BrokenPipeError):  # it died at once; its status says so below
                child.stdin.write(json.dumps(vars(request)))
                child.stdin.close()
            finished = False
            for line in child.stdout:
                message = json.loads(line)
                finished = message.get("finished", False)
                if not finished:
                    yield Finding(**message)
            if child.wait() or not finished:
                log.seek(0)
                words = one_line(log.read()[-LOG_TAIL:])
                raise InterpreterError(f"the interpreter ended with status {child.returncode}: {words}")
        finally:
            child.kill()

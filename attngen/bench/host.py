"""What a call costs before the GPU starts: microseconds of the host for each, and seconds of the first."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from attngen.bench.peers import Call, Peer, reset
from attngen.bench.results import HostRow
from attngen.bench.run import OURS, Bench, prepared
from attngen.inputs import make_inputs
from attngen.op import KindOp
from attngen.spec import Spec, dump_spec, parse_spec

SPEC = "{name: host, heads: 8, head_dim: 64, causal: true, dtype: bfloat16}"
BATCH, SEQ = 1, 128  # so small that the host is what takes time
CALLS, ROUNDS, WARMUP = 200, 7, 20
FIRST_CALL_SECONDS = 300.0  # until a first call is given up
ENVIRONMENT = dict(os.environ)  # before a peer compiles: PyTorch's compiler sets Triton's variables for its process


def measure_host(bench: Bench, peers: Sequence[Peer]) -> list[HostRow]:
    """Microseconds to issue one tiny call, many in a row without waiting; systems in turns, medians of rounds."""
    spec = parse_spec(SPEC)
    kind = spec.kinds[0]
    inputs = make_inputs(kind, BATCH, SEQ, SEQ, device=bench.device)
    op = KindOp(spec.name, kind, bench.db)
    makers: dict[str, Callable[[], Call]] = {OURS: lambda: lambda: op(**inputs)}
    makers |= {peer.name: partial(peer.make, kind, inputs) for peer in peers}
    reset()
    with torch.no_grad():
        calls, reasons = prepared(makers)
        times = _in_turns(calls, bench.device)
    rows = {name: HostRow(name, None, note=reason) for name, reason in reasons.items()}
    rows |= {name: HostRow(name, round(statistics.median(samples), 2)) for name, samples in times.items()}
    return [rows[name] for name in makers]


def _in_turns(calls: dict[str, Call], device: str) -> dict[str, list[float]]:
    """Microseconds a call of every round."""
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            for _ in range(WARMUP):
                call()
            wait()
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            times[name].append((time.perf_counter() - start) / CALLS * 1e6)
            wait()
    return times


def first_calls(spec: Spec, batch: int, seq: int, db: str | None) -> tuple[float, float]:
    """Seconds from loading a spec to its first kind's result, imports apart, each in a process of its own: with empty
    disk caches, and with those that the first has left."""
    with tempfile.TemporaryDirectory(prefix="attngen-first-") as folder:
        environment = {
            **ENVIRONMENT,
            "TRITON_CACHE_DIR": os.path.join(folder, "triton"),
            "ATTNGEN_CACHE": os.path.join(folder, "attngen"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        request = json.dumps({"spec": dump_spec(spec), "batch": batch, "seq": seq, "db": db})

        def run() -> float:
            done = subprocess.run(
                [sys.executable, "-m", "attngen.bench.first_call"],
                input=request,
                capture_output=True,
                text=True,
                env=environment,
                timeout=FIRST_CALL_SECONDS,
                check=True,
            )
            return float(done.stdout)

        return run(), run()

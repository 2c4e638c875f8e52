"""What a run is made on: the GPU and its limits, and its clocks before and during the measuring."""

from __future__ import annotations

import os
import pty
import statistics
import subprocess
import threading
import time
from typing import Any

from attngen.target import Target

CLOCKS = ("clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem", "power.limit", "temperature.gpu")
NVIDIA_SMI_SECONDS = 10.0
SAMPLE_MS = 200


def hardware(target: Target) -> dict[str, Any]:
    """The size of the GPU that torch uses."""
    import torch

    values: dict[str, Any] = {"target": target.name, "sms": target.sms}
    if torch.cuda.is_available():
        values["memory_gib"] = round(torch.cuda.get_device_properties().total_memory / 2**30, 1)
    return values


def limits(target: Target) -> dict[str, Any]:
    """The rates that the roofline is drawn with, and where they come from."""
    return {
        "bf16_tflops": target.peak_flops("bfloat16") / 1e12,
        "hbm_gbps": target.memory_bandwidth / 1e9,
        "exp2_per_ns": target.exp2_rate / 1e9,
        "source": f"attngen/target.py, {target.name}: {target.figures}, what programs reach and not the datasheet's",
    }


def clocks() -> dict[str, float] | None:
    """What the driver says of clocks (MHz), power (W) and heat (degrees C); None where there is no nvidia-smi."""
    try:
        run = subprocess.run(_query(CLOCKS), capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=True)
        values = run.stdout.strip().splitlines()[0].split(",")
    except (OSError, subprocess.SubprocessError, IndexError):
        return None
    found = {name: _number(value) for name, value in zip(CLOCKS, values, strict=False)}
    return {name: value for name, value in found.items() if value is not None}


class ClockLog:
    """The SM clock, asked several times a second from the start of a ``with`` to its end: throttling shows."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []  # seconds of time.monotonic(), MHz
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> ClockLog:
        # Through a terminal of its own, because a pipe would get the lines late, many at a time.
        try:
            ours, theirs = pty.openpty()
        except OSError:
            return self
        try:
            command = [*_query(("clocks.sm",)), f"--loop-ms={SAMPLE_MS}"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
        except OSError:
            os.close(ours)
            return self
        finally:
            os.close(theirs)
        threading.Thread(target=self._listen, args=(ours,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def note(self, mhz: float) -> None:
        self._samples.append((time.monotonic(), mhz))

    def median(self, since: float) -> float | None:
        """MHz from ``since``, a time of time.monotonic(), until now; None where nothing was heard."""
        heard = [mhz for when, mhz in self._samples if when >= since]
        return statistics.median(heard) if heard else None

    def _listen(self, terminal: int) -> None:
        with os.fdopen(terminal, errors="replace") as lines:
            try:
                for line in lines:
                    mhz = _number(line)
                    if mhz is not None:
                        self.note(mhz)
            except OSError:  # how a terminal says that the other side has ended
                pass


def _query(names: tuple[str, ...]) -> list[str]:
    return ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits", f"--id={_gpu()}"]


def _gpu() -> str:
    """What nvidia-smi calls the GPU that torch uses: their numbers differ where some are hidden."""
    import torch

    if torch.cuda.is_available():
        uuid = getattr(torch.cuda.get_device_properties(), "uuid", None)
        if uuid is not None:
            return f"GPU-{uuid}"
    return "0"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

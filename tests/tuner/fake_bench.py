"""A made-up kernel for the tuner's tests: times by formula, failures on demand. Imported by worker processes too."""

from __future__ import annotations

import itertools
import math
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from attngen.config import Config
from attngen.problem import Problem
from attngen.tuner.bench import Compiled, Failure, Kernel, Timing

PROBLEM = Problem("forward", "0123456789ab", 8, 8192, 8192)


@dataclass(frozen=True)
class Parameter:
    name: str
    choices: tuple


PARAMETERS = (
    Parameter("BLOCK_M", (16, 32, 64, 128, 256)),
    Parameter("BLOCK_N", (16, 32, 64, 128)),
    Parameter("num_warps", (2, 4, 8)),
    Parameter("num_stages", (1, 2, 3, 4)),
    Parameter("loads", ("pointer", "descriptor")),
    Parameter("SPLIT_MASKS", (True, False)),
)


def every_config(parameters=PARAMETERS):
    names = [p.name for p in parameters]
    points = [Config(**dict(zip(names, v, strict=True))) for v in itertools.product(*(p.choices for p in parameters))]
    return [c for c in points if c["BLOCK_M"] * c["BLOCK_N"] <= 16384]


def cost(config, seed=0):
    """Milliseconds: a bowl in the tile sizes, steps in the rest, interactions, and one per cent of grit."""
    m, n, w = math.log2(config["BLOCK_M"]), math.log2(config["BLOCK_N"]), math.log2(config["num_warps"])
    chance = random.Random(seed)
    best_m, best_n, best_stages = chance.choice([6, 7]), chance.choice([5, 6]), chance.choice([2, 3])
    ms = 0.2 * (1 + 0.06 * (m - best_m) ** 2 + 0.05 * (n - best_n) ** 2 + 0.03 * (m + n - 2 * w - 8) ** 2)
    ms *= 1 + 0.05 * abs(config["num_stages"] - best_stages)
    ms *= 1.1 if (config["loads"] == "pointer") == (seed % 2 == 0) else 1.0
    ms *= 1.04 if config["SPLIT_MASKS"] == (m > 6) else 1.0
    return ms * math.exp(random.Random(f"{seed}{config.label()}").gauss(0, 0.01))


@dataclass(frozen=True)
class FakeBench:
    """``trouble`` says what befalls a config: {label: "crash" | "hang" | "wrong" | "error" | ...}."""

    seed: int = 0
    trouble: tuple[tuple[str, str], ...] = ()
    measure_seconds: float = 0.0
    log: str = ""  # a file that gets a line for each measurement
    unfit_to_prepare: bool = False

    def _befalls(self, config):
        return dict(self.trouble).get(config.label(), "")

    def compile(self, config):
        what = self._befalls(config)
        if what == "compile crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if what == "compile hang":
            time.sleep(3600)
        if what == "compile slowly":
            time.sleep(6)
        if what == "compile error":
            raise Failure("compile_error", "no such instruction\n  at line 3")
        spills = 4096 if what == "spills" else 0
        shared = 10**6 if what == "shared" else 1024 * config["num_stages"]
        return Compiled(registers=128, spills=spills, shared=shared, seconds=0.01)

    def prepare(self):
        if self.unfit_to_prepare:
            raise RuntimeError("no GPU here")

    def measure(self, config, best_ms):
        what = self._befalls(config)
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(config.label() + "\n")
        if what == "crash":
            print("segfault at 0x0")
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "hang":
            time.sleep(3600)
        if what == "error":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if what == "wrong":
            raise Failure("wrong", "relative L2 error 0.5")
        time.sleep(self.measure_seconds)
        return Timing(cost(config, self.seed), 0.001, 100)

    def race(self, configs):
        return [Timing(cost(config, self.seed), 0.0005, 200) for config in configs]

    def kernels(self, config):
        return [Kernel("0123456789abcdef", config.label(), {"kernel.json": b"{}", "kernel.cubin": b"code"})]

    def healthy(self):
        return True


def template_of(digest):
    """Every schedule's templates have this digest."""
    return lambda config: digest


def fake_task(bench=None, parameters=PARAMETERS, configs=None, **changes):
    from attngen.database import Versions  # not at the top: worker processes have no use for these
    from attngen.target import TARGETS
    from attngen.tuner.task import Task

    bench = bench or FakeBench()
    configs = every_config(parameters) if configs is None else configs
    values = dict(
        problem=PROBLEM,
        target=TARGETS["h100"],
        parameters=parameters,
        configs=configs,
        default=configs[len(configs) // 2],
        bench=bench,
        source="measured",
        estimate=lambda config, compiled: cost(config, bench.seed + 1),
        spec="made-up",
        kind="local",
        device="NVIDIA H100 80GB HBM3",
        template=template_of("fedcba98"),
        versions=Versions(triton="3.6.0"),
    )
    return Task(**{**values, **changes})

"""The bench of a generated kernel: compiled anywhere, checked against the reference and timed on the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attngen.config import Config
from attngen.plan import Plan
from attngen.plan.backward import BackwardPlan
from attngen.problem import Problem
from attngen.target import Target
from attngen.tuner.bench import Compiled, Failure, Kernel, Timing


@dataclass
class KernelBench:
    """One kernel at one problem. Only plain values travel between processes; the rest is made on arrival."""

    plan: Plan
    problem: Problem
    target: Target

    def __post_init__(self) -> None:
        self._state: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"plan": self.plan, "problem": self.problem, "target": self.target, "_state": None}

    def compile(self, config: Config) -> Compiled:
        from attngen.source import CompileError, compile_source

        try:
            resources = compile_source(self.plan, config, self.target)
        except CompileError as error:
            raise Failure("compile_error", str(error)) from error
        return Compiled(resources.registers, resources.spills, resources.shared, resources.seconds)

    def prepare(self) -> None:
        import torch

        from attngen.tuner.timing import Timer

        torch.cuda.empty_cache()  # what the problem before left
        self._state = (checks_of(self.plan, self.problem), Timer())

    def measure(self, config: Config, best_ms: float | None) -> Timing:
        from triton.runtime.errors import OutOfResources

        from attngen.op.kernels import launcher_of

        checks, timer = self._state
        try:
            launcher = launcher_of(self.plan, config)
            wrong = checks.find_fault(launcher)
            if wrong:
                raise Failure("wrong", wrong)
            return timer.time(lambda: launcher(**checks.inputs), best_ms)
        except OutOfResources as error:
            raise Failure("too_large", str(error)) from error

    def race(self, configs: list[Config]) -> list[Timing]:
        from attngen.op.kernels import launcher_of

        checks, timer = self._state
        launchers = [launcher_of(self.plan, config) for config in configs]
        return timer.race([lambda launcher=launcher: launcher(**checks.inputs) for launcher in launchers])

    def kernels(self, config: Config) -> list[Kernel]:
        from attngen.op.compiled import compiled_files
        from attngen.op.kernels import launcher_of

        launcher = launcher_of(self.plan, config)
        launcher(**self._state[0].inputs)
        return [Kernel(source, one.hash, compiled_files(one)) for source, one in launcher.compiled()]

    def healthy(self) -> bool:
        if self._state is not None:
            import torch

            torch.cuda.synchronize()
        return True


def checks_of(plan: Plan, problem: Problem, device: str = "cuda") -> Any:
    """Inputs of a kernel's problem, and ``find_fault``, which says what is wrong with a candidate's answers."""
    from attngen.tuner.checks import Checks
    from attngen.tuner.gradient_checks import GradientChecks
    from attngen.tuner.sparse_checks import CHECKS

    if isinstance(plan, BackwardPlan):
        return GradientChecks(plan, problem, device)
    return CHECKS[plan.kernel](plan, problem, device) if plan.kernel in CHECKS else Checks(plan.kind, problem, device)

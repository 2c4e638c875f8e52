"""One tuning job as values: a problem, its space, and what to write beside each trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from attngen.config import Config
from attngen.database import Versions, current_versions
from attngen.database.ranking import Templates, no_templates
from attngen.database.trial import Origin
from attngen.errors import UsageError
from attngen.plan import Plan
from attngen.plan.backward import BackwardPlan
from attngen.plan.forward import ForwardPlan
from attngen.problem import Problem
from attngen.target import Target, detect
from attngen.tuner.backward_cost import estimate_backward_ms
from attngen.tuner.bench import Bench, Compiled
from attngen.tuner.cost_model import estimate_ms
from attngen.tuner.search import Parameter


@dataclass(frozen=True)
class Task:
    """What a search needs to know; nothing in it depends on what kind of kernel is tuned."""

    problem: Problem
    target: Target
    parameters: Sequence[Parameter]
    configs: Sequence[Config]  # every one worth compiling
    default: Config
    bench: Bench
    source: Origin
    estimate: Callable[[Config, Compiled | None], float]  # ms by the cost model
    spec: str = ""
    kind: str = ""
    description: str = ""
    device: str = ""
    template: Templates = no_templates  # what made the code of a config
    versions: Versions = field(default_factory=Versions)


def task_for(plan: Plan, problem: Problem, target: Target, *, spec: str = "") -> Task:
    """The job of tuning a kernel: measured where this machine has that GPU, else by the cost model, which knows the
    kernels of attention to every key, forward and backward: UsageError for others."""
    from attngen.plan.space import default_config, enumerate_configs, forward_space
    from attngen.source import template_digest
    from attngen.tuner.kernel import KernelBench

    here = detect()
    measured = here is not None and here.name == target.name
    if isinstance(plan, ForwardPlan):
        estimate = partial(estimate_ms, plan, problem=problem, target=target)
    elif isinstance(plan, BackwardPlan):
        estimate = partial(estimate_backward_ms, plan, problem=problem, target=target)
    elif measured:
        estimate = partial(_rank, default_config(plan, target, problem))
    else:
        raise UsageError(
            f"the cost model knows attention to every key; the {plan.kernel} kernel is tuned on {target.name} itself"
        )
    return Task(
        problem=problem,
        target=target,
        parameters=forward_space(plan, target),
        configs=enumerate_configs(plan, target, problem),
        default=default_config(plan, target, problem),
        bench=KernelBench(plan, problem, target),
        source="measured" if measured else "model",
        estimate=lambda config, compiled: estimate(config=config, compiled=compiled),
        spec=spec,
        kind=plan.kind.name,
        description=describe(plan, problem),
        device=_device_name() if measured else "",
        template=partial(template_digest, plan.kernel),
        versions=current_versions(),
    )


def _rank(default: Config, config: Config, compiled: Compiled | None) -> float:
    """Where nothing is known of a kernel's time: by how many tunables a config is away from the default."""
    return float(sum(default.get(name) != value for name, value in config.as_dict().items()))


def describe(plan: Plan, problem: Problem) -> str:
    """The kind and the sizes in words."""
    from attngen.spec.describe import describe_kind

    sizes = f"batch {problem.batch}, {problem.seq_q} x {problem.seq_k}"
    return f"{'; '.join(describe_kind(plan.kind))}; {sizes}"


def _device_name() -> Any:
    import torch

    return torch.cuda.get_device_name()

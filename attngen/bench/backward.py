"""The backward pass, measured: gradients of q, k and v from the results of a forward pass that is done.

Every system is asked through autograd, ours too, so that all pay for what the host does there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch._functorch import config as compiler

from attngen.bench.packed import op_call
from attngen.bench.peers import Call
from attngen.op import KindOp
from attngen.op.kernels import launcher_of
from attngen.problem import Problem
from attngen.tuner.checks import WrongAnswer
from attngen.tuner.kernel import checks_of

LEAVES = ("q", "k", "v")


def gradients_call(forward: Callable[[dict[str, Any]], Call], inputs: dict[str, Any]) -> Call:
    """The backward pass of what ``forward`` makes of the inputs; its graph is kept from call to call."""
    leaves = {name: inputs[name].detach().requires_grad_() for name in LEAVES}
    compiler.donated_buffer = False  # from here on a compiled backward pass writes over nothing that its graph holds
    with torch.enable_grad():
        result = forward({**inputs, **leaves})()
    out = result[0] if isinstance(result, tuple) else result
    dout = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, tuple(leaves.values()), dout, retain_graph=True)


def our_gradients(op: KindOp, inputs: dict[str, Any]) -> Call:
    """Our call, once its kernels' answers are right: a wrong kernel has no time."""
    if inputs["q"].device.type == "cuda":  # the CPU runs the reference itself
        for plan, problem in _problems(op, inputs):
            config = op.config(*(inputs[name] for name in LEAVES), kernel=plan.kernel).config
            if fault := checks_of(plan, problem).find_fault(launcher_of(plan, config)):
                raise WrongAnswer(f"{plan.kernel}: {fault}")
    return gradients_call(partial(op_call, op), inputs)


def backward_configs(op: KindOp, inputs: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The config of each kernel, and where they come from."""
    chosen = {
        plan.kernel: op.config(*(inputs[name] for name in LEAVES), kernel=plan.kernel)
        for plan, _ in _problems(op, inputs)
    }
    origins = [f"{name}: {one.provenance}" for name, one in chosen.items()]
    return {name: one.config.as_dict() for name, one in chosen.items()}, "; ".join(origins)


def _problems(op: KindOp, inputs: dict[str, Any]) -> list[tuple[Any, Problem]]:
    """The kernels that make the gradients of q, k and v."""
    q, k = inputs["q"], inputs["k"]
    sizes = (q.shape[0], q.shape[2], k.shape[2])
    return [(plan, Problem(plan.kernel, op.kind.digest(), *sizes)) for plan in op.gradient_plans(*sizes)]

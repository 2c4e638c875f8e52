"""What the template of the sum of branches is filled with."""

from __future__ import annotations

from typing import Any

from attngen.config import Config
from attngen.plan.gated import GatedPlan
from attngen.source.elementwise import Assignment
from attngen.source.parameters import Parameter
from attngen.source.types import pointer


def result_pointers(plan: GatedPlan) -> list[str]:
    """The parameters of the branches' results, in the order of their gates."""
    return [f"{branch.name}_ptr" for branch in plan.kind.branches]


def gated_context(plan: GatedPlan, config: Config) -> dict[str, Any]:
    """For the template."""
    kind, results = plan.kind, result_pointers(plan)
    shape = "[batch, heads, seq_q, v dim]"
    parameters = [
        *(Parameter(name, f"{shape}, the result of a branch") for name in results),
        Parameter("gates_ptr", "[batch, heads, seq_q, branches], float32"),
        Parameter("out_ptr", f"{shape}, with the strides of the results"),
        *(Parameter(f"stride_{tensor}{axis}") for tensor in "og" for axis in "bhs"),
        Parameter("stride_gn", "from one branch to the next"),
        *map(Parameter, ("heads", "seq_q", "rows")),
    ]
    elements = dict.fromkeys([*results, "out_ptr"], kind.dtype) | {"gates_ptr": "float32"}
    padded = any(chunk.padded for chunk in plan.chunks)
    names = ", ".join(branch.name for branch in kind.branches)
    return {
        "plan": plan,
        "entry": "sum_branches",
        "docstring": f"The sum of branches of kind '{kind.name}', each times its gate: {names}.",
        "constants": [Assignment("V_DIM", str(kind.head_dim.v), "width of values")] if padded else [],
        "parameters": parameters,
        "types": tuple(pointer(elements[p.name]) if p.name in elements else "i32" for p in parameters),
        "unspecialised": ["heads", "seq_q", "rows"],
        "constexprs": ("BLOCK_M",),
        "options": {"num_warps": config["num_warps"], "num_stages": config["num_stages"]},
        "results": list(enumerate(results)),
    }
